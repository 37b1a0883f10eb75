// The sessions: what is known of them, and their list.

import { by, count, duration, make, octets, say, visible } from "./dom.js";

const ENDED_KEPT = 1000;

/** Seconds of this page's clock. */
const now = () => performance.now() / 1000;

/** What is known of all sessions: loaded, then kept up by events. */
export class Sessions {
  constructor() {
    this.byId = new Map();
    /** Those that changed since somebody looked last. */
    this.changed = new Set();
    this.gone = new Set();
  }

  clear() {
    for (const id of this.byId.keys()) this.gone.add(id);
    this.byId.clear();
    this.changed.clear();
  }

  /** Take over a list as the server has it; `seq` is the last event that is in it. */
  load(list, seq) {
    const listed = new Set();
    for (const one of list.toSorted((a, b) => a.id - b.id)) {
      listed.add(one.id);
      this.put({ seq, ...one });
    }
    // One that began a moment ago may not be in it yet.
    for (const [id, session] of this.byId) if (session.ended && !listed.has(id)) this.forget(id);
  }

  /** Take over one as the server has it. */
  put(one) {
    const before = this.byId.get(one.id);
    // Events may be ahead of an answer that was on its way.
    if (before?.ended && !one.ended) return;
    this.byId.set(one.id, { ...one, since: now() - one.seconds });
    this.changed.add(one.id);
    this.gone.delete(one.id);
  }

  forget(id) {
    this.byId.delete(id);
    this.changed.delete(id);
    this.gone.add(id);
  }

  apply(event) {
    const id = event.session;
    if (event.event === "Connected") {
      if (!this.byId.has(id)) {
        this.put({
          id, protocol: event.protocol, peer: event.peer, host: event.channel.host, user: null, mechanism: null,
          tls: event.channel.tls, state: "connected", client: null, began: event.time, seconds: 0, received: 0,
          sent: 0, retrieved: 0, removed: 0, ended: null, held: false,
        });
      }
      return;
    }
    const session = this.byId.get(id);
    if (!session || event.seq <= (session.seq ?? 0)) return;
    this.changed.add(id);
    switch (event.event) {
      case "LineReceived":
        session.state = event.state;
        session.received += event.octets;
        break;
      case "TextReceived":
        session.received += event.octets;
        break;
      case "ReplySent":
        session.sent += event.octets;
        break;
      case "TLSStarted":
        session.tls = event.tls;
        break;
      case "LoggedIn":
        session.user = event.user;
        session.mechanism = event.mechanism;
        if (event.protocol === "POP3") session.state = "TRANSACTION";
        break;
      case "MessageRetrieved":
        session.retrieved += 1;
        break;
      case "MessageRemoved":
        session.removed += 1;
        break;
      case "Ended":
        Object.assign(session, {
          ended: event.why || "ended", seconds: event.seconds, received: event.received, sent: event.sent,
          retrieved: event.retrieved, removed: event.removed, held: false,
        });
        this.trim();
        break;
      default:
    }
  }

  trim() {
    const ended = [...this.byId.values()].filter((one) => one.ended);
    for (const one of ended.slice(0, Math.max(0, ended.length - ENDED_KEPT))) this.forget(one.id);
  }
}

/** How long it has lasted, in seconds. */
export const age = (session) => (session.ended ? session.seconds : now() - session.since);

/** Its user, or that there is none. */
export const who = (session) => (session.user ? visible(session.user) : "not logged in");

/** What it speaks, and in what. */
export function speaks(session) {
  return session.tls ? `${session.protocol}, ${visible(session.tls.version)}` : session.protocol;
}

/** The list of all sessions; `selected` is the one that is shown. */
export class List {
  constructor(sessions) {
    this.sessions = sessions;
    this.rows = new Map();
    this.selected = null;
    by("filter").addEventListener("submit", (event) => event.preventDefault());
    by("query").addEventListener("input", () => this.filter());
    by("which").addEventListener("change", () => this.filter());
    by("sessions").addEventListener("keydown", (event) => this.key(event));
  }

  /** Bring the rows up to date: those of the sessions that changed. */
  update() {
    for (const id of this.sessions.gone) {
      this.rows.get(id)?.row.remove();
      this.rows.delete(id);
    }
    this.sessions.gone.clear();
    for (const id of this.sessions.changed) this.row(this.sessions.byId.get(id));
    this.sessions.changed.clear();
    this.total();
  }

  row(session) {
    let cells = this.rows.get(session.id);
    if (!cells) {
      const link = make("a", { href: `#session=${session.id}` });
      const cell = (kind = "") => make("td", { class: kind });
      cells = {
        link, name: make("span", { class: "user" }), address: cell("address"), protocol: cell("less"), state: cell(),
        client: cell("more"), octets: cell("number more"), age: cell("number"), home: null,
      };
      link.append(`${session.id} `, cells.name);
      cells.row = make(
        "tr", { "data-session": session.id }, make("th", { scope: "row" }, link), cells.address, cells.protocol,
        cells.state, cells.client, cells.octets, cells.age,
      );
      this.rows.set(session.id, cells);
    }
    say(cells.name, who(session));
    say(cells.address, visible(session.peer ?? session.host ?? ""));
    say(cells.protocol, speaks(session));
    say(cells.state, session.ended ? `ended: ${visible(session.ended)}` : visible(session.state));
    if (session.held) cells.state.append(" ", make("strong", {}, "held"));
    say(cells.client, visible(session.client ?? ""));
    say(cells.octets, `${octets(session.received)} / ${octets(session.sent)}`);
    say(cells.age, duration(age(session)));
    const home = by(session.ended ? "ended" : "live");
    if (cells.home !== home) {
      const focused = cells.row.contains(document.activeElement);
      home.prepend(cells.row);
      cells.home = home;
      // A row that is moved loses the focus.
      if (focused) cells.link.focus();
    }
    this.mark(session.id, cells);
    cells.row.hidden = !this.fits(session);
  }

  mark(id, cells) {
    if (id === this.selected) cells.link.setAttribute("aria-current", "true");
    else cells.link.removeAttribute("aria-current");
  }

  select(id) {
    const before = this.selected;
    this.selected = id;
    for (const one of [before, id]) if (this.rows.has(one)) this.mark(one, this.rows.get(one));
  }

  fits(session) {
    const which = by("which").value;
    if (which !== "all" && (which === "ended") !== Boolean(session.ended)) return false;
    const wanted = by("query").value.trim().toLowerCase();
    if (!wanted) return true;
    const { id, user, peer, client, state, protocol, ended, tls } = session;
    const text = [id, user, peer, client, ended ?? state, protocol, tls?.version].join(" ").toLowerCase();
    return wanted.split(/\s+/).every((word) => text.includes(word));
  }

  filter() {
    for (const [id, cells] of this.rows) cells.row.hidden = !this.fits(this.sessions.byId.get(id));
    this.total();
  }

  total() {
    let shown = 0;
    let live = 0;
    for (const [id, cells] of this.rows) {
      shown += cells.row.hidden ? 0 : 1;
      live += this.sessions.byId.get(id)?.ended ? 0 : 1;
    }
    const all = this.rows.size;
    say(by("count"), shown === all ? `${count(live)} live, ${count(all - live)} ended` : `${count(shown)} of ${count(all)}`);
    by("nobody").hidden = all > 0;
  }

  /** Ages go on without events. */
  tick() {
    for (const [id, cells] of this.rows) {
      const session = this.sessions.byId.get(id);
      if (session && !session.ended) say(cells.age, duration(age(session)));
    }
  }

  /** Arrows go from session to session. */
  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const links = [...by("sessions").querySelectorAll("tbody tr:not([hidden]) a")];
    const here = links.indexOf(document.activeElement);
    if (here < 0) return;
    event.preventDefault();
    links[Math.min(links.length - 1, Math.max(0, here + step))].focus();
  }
}
