// One session as a sequence diagram: client on the left, server on the right, explanations beside.

import { by, clock, count, make, octets, say, several, visible } from "./dom.js";

const SHOWN = 500; // steps in the document at once; more on demand
const KEPT = 5000; // events in memory
const PER_FRAME = 150;
const LINES = 12; // of a long text, before the rest is folded away
const CHARACTERS = 40000;

/** What an event is in the diagram: on whose side, and in what words. */
function describe(event) {
  const size = `(${several(event.octets ?? 0, "octet")})`;
  switch (event.event) {
    case "LineReceived":
      return { side: "client", text: event.line };
    case "TextReceived":
      return { side: "client", text: event.data.replace(/\r\n$/, "") || `${size} of the message` };
    case "ReplySent": {
      const text = event.data.replace(/\r\n$/, "") || size;
      return { side: "server", text, lost: !event.handed_over };
    }
    case "Connected":
      return { side: "both", text: `${event.peer} connects: ${event.protocol}${event.channel.tls ? " over TLS" : ""}` };
    case "ConnectionRejected":
      return { side: "both", text: `sent away: ${event.why}` };
    case "InputDiscarded":
      return { side: "both", text: `${several(event.octets, "octet")} in clear text behind it thrown away` };
    case "TLSStarted":
      return { side: "both", text: `TLS: ${event.tls.version}, ${event.tls.cipher}` };
    case "TLSFailed":
      return { side: "both", text: `TLS failed: ${event.why}` };
    case "LoggedIn":
      return { side: "both", text: `logged in: ${event.user}, by ${event.mechanism}` };
    case "LoginFailed":
      return { side: "both", text: `login failed: ${event.user}, by ${event.mechanism}: ${event.why}` };
    case "MessageRetrieved":
      return { side: "both", text: `message ${event.number} handed over: ${several(event.octets, "octet")}, unique-id ${event.uid}` };
    case "MessageRemoved":
      return { side: "both", text: `message removed: unique-id ${event.uid}` };
    case "Delivered":
      return { side: "both", text: `delivered: ${several(event.octets, "octet")}, to ${event.uids.map(([user]) => user).join(", ")}` };
    case "Refused":
      return { side: "both", text: `refused: ${event.code} ${event.enhanced} ${event.reason}` };
    case "Queued":
      return { side: "both", text: `queued as ${event.queue_id}: ${several(event.octets, "octet")}, for ${event.recipients.join(", ")}` };
    case "Noted":
      return { side: "both", text: event.text };
    case "Ended":
      return { side: "both", text: `the connection ends: ${event.why}` };
    default:
      return { side: "both", text: event.event };
  }
}

const SPOKEN = { client: "Client to server: ", server: "Server to client: ", both: "" };

/** A text of any length: what is too long is folded away, or left to the transcript. */
function words(text, cut) {
  let shown = visible(text);
  if (shown.length > CHARACTERS) {
    cut += shown.length - CHARACTERS;
    shown = shown.slice(0, CHARACTERS);
  }
  const lines = shown.split("\n");
  const body = [make("code", {}, lines.slice(0, LINES).join("\n"))];
  if (lines.length > LINES) {
    body.push(make(
      "details", {}, make("summary", {}, several(lines.length - LINES, "more line")),
      make("code", {}, lines.slice(LINES).join("\n")),
    ));
  }
  if (cut) body.push(make("small", {}, `… and ${several(cut, "more character")}`));
  return body;
}

/** "RFC 1939 section 5" as a link to it. */
function reference(clause) {
  const [, rfc, section] = /^RFC (\d+)(?: section ([0-9A-Z.]+))?/.exec(clause) ?? [];
  if (!rfc) return make("cite", {}, clause);
  const url = `https://www.rfc-editor.org/rfc/rfc${rfc}${section ? `#section-${section}` : ""}`;
  return make("a", { class: "clause", href: url, target: "_blank", rel: "noopener noreferrer" }, clause);
}

// What the text itself does not say of its kind.
const NAMED = { hint: "Hint: ", warning: "Warning: " };
const KINDS = new Set(["state", "note", "hint", "warning", "summary", "measure"]);

/** The beginning of the line that an explanation is about, where there are several. */
function about(text, line) {
  const lines = text.replace(/\r\n$/, "").split("\r\n");
  const found = line == null || lines.length < 2 ? "" : lines[line] ?? "";
  return found ? make("code", {}, visible(found.length > 24 ? `${found.slice(0, 23)}…` : found)) : null;
}

function explained(list, text) {
  const items = (list ?? []).map((one) => make(
    "p", { class: `said ${KINDS.has(one.kind) ? one.kind : "note"}` },
    about(text, one.line), " ",
    NAMED[one.kind] ? make("strong", {}, NAMED[one.kind]) : null, visible(one.text), one.clause ? " " : null,
    one.clause ? reference(one.clause) : null,
  ));
  return make("div", { class: "explained" }, ...items);
}

/** One event as an item of the list. */
function step(event) {
  const { side, text, lost } = describe(event);
  const arrow = make(
    "div", { class: `arrow ${side}${lost ? " lost" : ""}` },
    make("span", { class: "unseen" }, SPOKEN[side]), ...words(text, event.cut ?? 0),
    lost ? make("small", {}, "did not leave: the connection ended before") : null,
  );
  return make(
    "li", { class: "step", "data-seq": event.seq, "data-event": event.event },
    make("time", { datetime: event.time, title: event.time }, clock(event.time, true)),
    make("div", { class: "lane" }, arrow), explained(event.explained, event.data ?? ""),
  );
}

/** The session that is shown. */
export class Diagram {
  constructor() {
    this.steps = by("steps");
    this.due = false;
    this.clear(null);
    by("earlier").addEventListener("click", () => this.more());
    by("find").addEventListener("input", () => this.find());
  }

  /** Show another session, of which nothing is known yet. */
  clear(id) {
    this.id = id;
    this.events = [];
    this.last = 0; // the number of the last event
    this.left = 0; // events before those that are kept
    this.first = 0; // where in `events` the document begins
    this.done = 0; // where in `events` it ends
    this.most = SHOWN;
    this.loading = true;
    this.early = [];
    this.steps.replaceChildren();
    by("find").value = "";
    this.schedule();
  }

  /** All that the server keeps of it; what came meanwhile goes behind. */
  load(events, missed = 0, live = false) {
    this.loading = false;
    this.left = missed;
    this.add(events);
    this.add(this.early);
    this.early = [];
    this.live = live;
  }

  add(events) {
    if (this.loading) {
      this.early.push(...events);
      return;
    }
    for (const event of events) {
      if (event.seq <= this.last) continue;
      this.last = event.seq;
      this.events.push(event);
    }
    const over = this.events.length - KEPT;
    if (over > 0) {
      this.events.splice(0, over);
      this.left += over;
      this.first = Math.max(0, this.first - over);
      this.done = Math.max(0, this.done - over);
    }
    this.schedule();
  }

  /** Something is missing between what there is and what comes. */
  gap(text) {
    this.steps.append(make("li", { class: "step gap" }, text));
  }

  more() {
    this.most += SHOWN;
    const from = Math.max(0, this.done - this.most);
    const before = this.events.slice(from, this.first).map(step);
    const [next] = before;
    this.steps.prepend(...before);
    this.first = from;
    this.find();
    this.schedule();
    next?.setAttribute("tabindex", "-1");
    next?.focus();
  }

  schedule() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.flush();
    });
  }

  flush() {
    // What would be taken out again at once is not put in.
    const skip = Math.max(this.done, this.events.length - this.most);
    if (skip > this.done) {
      if (skip - this.done > this.steps.children.length) this.first = skip;
      this.done = skip;
    }
    const until = Math.min(this.events.length, this.done + PER_FRAME);
    if (until > this.done) {
      const added = this.events.slice(this.done, until).map(step);
      this.done = until;
      const wanted = by("find").value.trim().toLowerCase();
      if (wanted) for (const one of added) one.hidden = !one.textContent.toLowerCase().includes(wanted);
      this.steps.append(...added);
      while (this.steps.children.length > this.most) this.steps.firstElementChild.remove();
      this.first = Math.max(0, this.done - this.steps.children.length);
      const box = by("conversation");
      if (this.live && by("follow").checked) box.scrollTop = box.scrollHeight;
    }
    const hidden = this.first;
    by("earlier").hidden = hidden === 0 && this.left === 0;
    by("earlier").disabled = hidden === 0;
    say(by("earlier"), hidden ? `${several(hidden, "earlier event")}: show` : `${several(this.left, "event")} before: see the transcript`);
    if (this.done < this.events.length) this.schedule();
  }

  /** Only steps with these words. */
  find() {
    const wanted = by("find").value.trim().toLowerCase();
    for (const one of this.steps.children) one.hidden = Boolean(wanted) && !one.textContent.toLowerCase().includes(wanted);
  }
}

/** The facts above the diagram. */
export function factsOf(session) {
  const tls = session.tls ? `${session.tls.version}, ${session.tls.cipher}` : "none";
  const pairs = [
    ["User", session.user ? `${session.user} (${session.mechanism ?? "?"})` : "not logged in"],
    ["Address", session.peer ?? session.host],
    ["Protocol", session.protocol],
    ["TLS", tls],
    ["State", session.ended ? `ended: ${session.ended}` : session.state],
    ["Client", session.client ? `${session.client} (a guess)` : "not known"],
    ["Octets", `${octets(session.received)} in, ${octets(session.sent)} out`],
    ["Messages", `${count(session.retrieved ?? 0)} fetched, ${count(session.removed ?? 0)} removed`],
    ["Began", clock(session.began)],
  ];
  return pairs.map(([name, value]) => [name, visible(String(value ?? ""))]);
}
