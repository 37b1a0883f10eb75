"""Somebody who sees Thunderbird for the first time.

Here lives what reads Thunderbird's windows and works them with mouse and
keyboard alone, on a profile that has no account: fields and buttons go by the
words that stand at them on the screen.  Nothing here knows what the steps are.
"""

from __future__ import annotations

from pathlib import Path

from ..realserver import wait_until
from .thunderbird_process import DialogOpen, Preferences, ThunderbirdProcess

__all__ = ["Newcomer"]

#: Pixels: a whole page of the Account Hub fits in.
_SCREEN = (1000, 900)

#: What is on the screen, and Gecko's own synthetic mouse and keyboard.
_EYES_AND_HANDS = """
    const BUTTON = "button, toolbarbutton, li span", FIELD = "input", LIST = "select";
    const plain = (text) => (text ?? "").replace(/\\s+/g, " ").trim();
    // Every element of every window, the newest window first, with the frames and shadow trees inside.
    function* inside(root) {
        for (const element of root.querySelectorAll("*")) {
            yield element;
            if (element.shadowRoot) yield* inside(element.shadowRoot);
            if (element.contentDocument) yield* inside(element.contentDocument);
        }
    }
    function* everywhere() {
        for (const window of [...Services.wm.getEnumerator(null)].reverse()) yield* inside(window.document);
    }
    // The middle can be seen: no dialog and no other tab is above it, nor above the frames that it is in.
    const onScreen = (element) => {
        if (!element.checkVisibility({visibilityProperty: true})) return false;
        let {left, top, width, height} = element.getBoundingClientRect();
        let [x, y] = [left + width / 2, top + height / 2];
        for (;;) {
            const hit = element.getRootNode().elementFromPoint(x, y);
            if (!hit || !element.contains(hit) && !hit.contains(element)) return false;
            const frame = element.ownerDocument.defaultView.browsingContext.embedderElement;
            if (!frame) return true;
            ({left, top} = frame.getBoundingClientRect());
            [element, x, y] = [frame, x + left, y + top];
        }
    };
    const says = (element, words) =>
        plain(element.getAttribute("title")) == words || plain(element.textContent) == words;
    const find = (words, kind) => {
        for (const element of everywhere()) {
            if (!says(element, words)) continue;
            const found = element.localName == "label" && element.control || element;
            if (!found.matches(kind) || found.disabled) continue;
            found.scrollIntoView({block: "center", behavior: "instant"});
            if (onScreen(found)) return found;
        }
    };
    const handsOn = (element) => {
        const window = element.ownerDocument.defaultView;
        const hands = {window, parent: window};
        Services.scriptloader.loadSubScript("chrome://remote/content/external/EventUtils.js", hands);
        return {
            press: () => hands.synthesizeMouseAtCenter(element, {}, window),
            selectAll: () => hands.synthesizeKey("a", {ctrlKey: true}, window),
            type: (text) => hands.sendString(text, window),
        };
    };
"""
_PRESS = """
    const button = find(arguments[0], BUTTON);
    if (!button) return false;
    handsOn(button).press();
    return true;
"""
_TYPE = """
    const field = find(arguments[0], FIELD);
    if (!field) return false;
    const hands = handsOn(field);
    hands.press();
    hands.selectAll();
    hands.type(arguments[1]);
    return field.value == arguments[1];
"""
_CHOOSE = """
    const list = find(arguments[0], LIST);
    if (!list) return false;
    list.focus();
    handsOn(list).type(arguments[1]);
    return plain(list.selectedOptions[0].label) == arguments[1];
"""
_SEE = """
    for (const element of everywhere()) if (says(element, arguments[0]) && onScreen(element)) return true;
    return false;
"""
#: A dialog stops Marionette: it is answered from inside, by an observer that stays.
_WHEN_ASKED = """
    const [question, answer] = arguments;
    Services.obs.addObserver(function asked(dialog) {
        const {args, ui} = dialog.Dialog;
        if (!plain(args.text).endsWith(question)) return;
        Services.obs.removeObserver(asked, "common-dialog-loaded");
        const look = dialog.setInterval(() => {
            if (ui.button0.disabled || !onScreen(ui.button0)) return;
            dialog.clearInterval(look);
            if (answer !== null) {
                ui.password1Textbox.focus();
                handsOn(ui.password1Textbox).type(answer);
            }
            handsOn(ui.button0).press();
        }, 50);
    }, "common-dialog-loaded");
    return true;
"""


class Newcomer(ThunderbirdProcess):
    """A Thunderbird without any account, and somebody before it; a context manager that ends both.

    :param home: an empty folder; if something is not on the screen, ``screen.png`` there shows what is.
    :param preferences: what was set before.
    """

    def __init__(self, home: Path, preferences: Preferences | None = None) -> None:
        super().__init__(home, preferences or {}, _SCREEN)
        self._home = home

    def press(self, words: str) -> None:
        """Press the button, link or row that says this."""
        self._do(_PRESS, "press", words)

    def type(self, label: str, text: str) -> None:
        """Replace what is in the field with this label."""
        self._do(_TYPE, "type into", label, text)

    def choose(self, label: str, option: str) -> None:
        """Choose from the list with this label."""
        self._do(_CHOOSE, "choose from", label, option)

    def see(self, words: str) -> None:
        """Wait until this is on the screen."""
        self._do(_SEE, "see", words)

    def when_asked(self, question: str, answer: str | None = None) -> None:
        """Press *OK* in a dialog whose text ends with this question, when it comes.

        :param answer: is typed first.
        """
        self._do(_WHEN_ASKED, "answer", question, answer)

    def _do(self, script: str, what: str, *arguments: str | None) -> None:
        try:
            wait_until(lambda: self._done(script, arguments), f"{what} {arguments}")
        except AssertionError:
            (self._home / "screen.png").write_bytes(self.screenshot())
            raise

    def _done(self, script: str, arguments: tuple[str | None, ...]) -> bool:
        try:
            return bool(self.run(_EYES_AND_HANDS + script, *arguments))
        except DialogOpen:
            return False
