// Mailboxes, and their messages where the server shows them.

import { get, messagePath, remove } from "./api.js";
import { confirmed } from "./confirm.js";
import { by, clock, count, make, octets, several, visible } from "./dom.js";

const mailboxLink = (user) => `#mailbox=${encodeURIComponent(user)}`;
const messageLink = (user, uid) => `#message=${encodeURIComponent(user)}/${encodeURIComponent(uid)}`;

/** A date as the message gives it, or when it came. */
function when(message) {
  const time = new Date(message.date || message.arrived);
  return Number.isNaN(time.getTime()) ? visible(message.date ?? "") : `${time.toLocaleDateString("en-CA")} ${clock(time.toISOString())}`;
}

export class Mailboxes {
  /** `shown()` says whether there is content to see, `removable()` whether it may be deleted; `trouble(problem)` tells the user. */
  constructor({ shown, removable, trouble, spoken }) {
    Object.assign(this, { shown, removable, trouble, spoken });
    this.user = null;
    this.uid = null;
    this.turn = 0;
  }

  /** The list of all. */
  async load() {
    try {
      const { mailboxes } = await get("mailboxes");
      const rows = mailboxes.map((one) => {
        const name = visible(one.user);
        return make(
          "tr", {},
          make("th", { scope: "row" }, this.shown() ? make("a", { href: mailboxLink(one.user) }, name) : name),
          make("td", { class: "number" }, one.messages == null ? "" : count(one.messages)),
          make("td", { class: "number" }, one.octets == null ? "" : octets(one.octets)),
          make("td", {}, one.locked_by == null ? "" : make("a", { href: `#session=${one.locked_by}` }, `session ${one.locked_by}`)),
        );
      });
      // Who is on one of the links stays there.
      const focused = by("mailboxes").contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      by("mailboxes").replaceChildren(...rows);
      if (focused) [...by("mailboxes").querySelectorAll("a")].find((a) => a.getAttribute("href") === focused)?.focus();
      by("no-mailbox").hidden = rows.length > 0;
      this.locked = mailboxes.find((one) => one.user === this.user)?.locked_by ?? null;
    } catch (problem) {
      this.trouble(problem);
    }
  }

  /** One mailbox, or one message of it; null for none. */
  async show(user, uid = null) {
    this.user = user;
    this.uid = uid;
    const turn = ++this.turn;
    const box = by("mailbox");
    box.hidden = user === null;
    if (user === null) {
      box.replaceChildren();
      return;
    }
    try {
      const parts = uid === null ? await this.list(user) : await this.message(user, uid);
      if (turn !== this.turn) return;
      box.replaceChildren(...parts);
      box.querySelector("h2").focus();
    } catch (problem) {
      if (turn !== this.turn) return;
      box.replaceChildren(make("h2", { tabindex: "-1" }, visible(user)), make("p", {}, visible(problem.message)));
    }
  }

  async list(user) {
    const { messages } = await get(messagePath(user));
    const rows = messages.map((one) => make(
      "tr", {},
      make("th", { scope: "row" }, make("a", { href: messageLink(user, one.uid) }, visible(one.subject || "(no subject)"))),
      make("td", {}, visible(one.from ?? "")),
      make("td", { class: "more" }, when(one)),
      make("td", { class: "number" }, octets(one.octets)),
      make("td", {}, this.removable() && make(
        "button",
        { type: "button", class: "grave", "aria-label": `Delete ${visible(one.subject || one.uid)} …`, onclick: () => this.remove(user, one) },
        "Delete …",
      )),
    ));
    const head = make("tr", {}, ...["Subject", "From", "Date", "Octets"].map((name, index) => make(
      "th", { scope: "col", class: ["", "", "more", "number"][index] }, name,
    )), make("td"));
    return [
      make("h2", { tabindex: "-1" }, `Messages of ${visible(user)}`),
      this.removable() && rows.length > 0 ? make(
        "p", { class: "tools" },
        make("button", { type: "button", class: "grave", onclick: () => this.remove(user, null, rows.length) }, "Delete all …"),
      ) : "",
      rows.length ? make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)) : make("p", { class: "quiet" }, "It is empty."),
    ];
  }

  async remove(user, message, number = 1) {
    const what = message ? `“${visible(message.subject || message.uid)}”` : several(number, "message");
    if (!(await confirmed(`Delete ${message ? "a message" : "all"}?`, `${what} of ${visible(user)} will be gone.`, "Delete"))) return;
    try {
      await remove(messagePath(user, message ? message.uid : null));
      this.spoken("Deleted.");
      if (this.uid === null) await this.show(user);
      else location.hash = mailboxLink(user);
      await this.load();
    } catch (problem) {
      this.trouble(problem);
    }
  }

  async message(user, uid) {
    const message = await get(messagePath(user, uid));
    const header = (name) => message.headers.find(([one]) => one.toLowerCase() === name)?.[1] ?? "";
    const subject = header("subject") || "(no subject)";
    const panels = [["Text", make("pre", {}, visible(message.text ?? "(no text part)"))]];
    if (message.html != null) {
      // It has a policy of its own (no scripts, nothing from elsewhere), and an origin that nothing belongs to.
      panels.push(["HTML", make("iframe", {
        sandbox: "", src: `api/${messagePath(user, uid, "html")}`, title: "The message's HTML", referrerpolicy: "no-referrer", loading: "lazy",
      })]);
    }
    panels.push(["Headers", make("table", { class: "headers" }, make("tbody", {}, ...message.headers.map(([name, value]) => make(
      "tr", {}, make("th", { scope: "row" }, visible(name)), make("td", {}, visible(value)),
    ))))]);
    panels.push(["Raw", make("pre", {}, visible(message.raw ?? ""))]);
    if (message.attachments?.length) {
      panels.push([`Attachments (${message.attachments.length})`, make("ul", {}, ...message.attachments.map((one) => {
        const name = visible(one.name || `part ${one.part}`);
        const href = `api/${messagePath(user, uid, "parts", String(one.part))}`;
        return make("li", {}, make("a", { href, download: one.name || true }, name), ` ${visible(one.type)}, ${several(one.octets, "octet")}`);
      }))]);
    }
    return [
      make("p", { class: "back" }, make("a", { href: mailboxLink(user) }, `Messages of ${visible(user)}`)),
      make("h2", { tabindex: "-1" }, visible(subject)),
      make("p", { class: "tools" },
        make("a", { href: `api/${messagePath(user, uid)}`, download: `${uid}.eml` }, "Save"),
        this.removable() && make("button", { type: "button", class: "grave", onclick: () => this.remove(user, { uid, subject }) }, "Delete …")),
      ...tabs(panels),
    ];
  }
}

/** Panels of which one is shown; arrows go from tab to tab. */
function tabs(panels) {
  const buttons = panels.map(([name], index) => make(
    "button", { type: "button", role: "tab", id: `tab-${index}`, "aria-controls": `panel-${index}` }, name,
  ));
  const boxes = panels.map(([, content], index) => make(
    "div", { role: "tabpanel", id: `panel-${index}`, "aria-labelledby": `tab-${index}`, tabindex: "0" }, content,
  ));
  function choose(chosen) {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", String(index === chosen));
      button.tabIndex = index === chosen ? 0 : -1;
      boxes[index].hidden = index !== chosen;
    });
  }
  buttons.forEach((button, index) => {
    button.addEventListener("click", () => choose(index));
    button.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = (to + buttons.length) % buttons.length;
      choose(next);
      buttons[next].focus();
    });
  });
  choose(0);
  return [make("div", { role: "tablist", "aria-label": "The message" }, ...buttons), ...boxes];
}
