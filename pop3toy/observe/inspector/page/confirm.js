// Asks before something is done that cannot be undone.

import { by, say } from "./dom.js";

/** Whether the user wants it; the focus goes back to where it was. */
export function confirmed(title, text, action) {
  const dialog = by("confirm");
  say(by("confirm-title"), title);
  say(by("confirm-text"), text);
  say(by("confirm-yes"), action);
  const before = document.activeElement;
  return new Promise((resolve) => {
    let yes = false;
    by("confirm-yes").onclick = () => {
      yes = true;
      dialog.close();
    };
    by("confirm-no").onclick = () => dialog.close();
    dialog.onclose = () => {
      if (before?.isConnected) before.focus();
      resolve(yes);
    };
    dialog.showModal();
    by("confirm-no").focus();
  });
}
