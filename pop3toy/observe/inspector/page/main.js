// The page: what is shown is in the part of the address behind #, what is known comes from the API and its events.

import { get, post, Problem } from "./api.js";
import { charts } from "./charts.js";
import { confirmed } from "./confirm.js";
import { Diagram, factsOf } from "./diagram.js";
import { by, count, duration, make, say, several, visible } from "./dom.js";
import { Mailboxes } from "./mailboxes.js";
import { List, Sessions, who } from "./sessions.js";
import { follow } from "./stream.js";

const EVERY = 3000; // ms between two looks at what events do not tell
const ROWS = 200; // ms between two updates of the list

const sessions = new Sessions();
const list = new List(sessions);
const diagram = new Diagram();
const mailboxes = new Mailboxes({
  shown: () => status.toy || status.shows_mail,
  removable: () => status.toy,
  trouble,
  spoken,
});
let status = { toy: false, protocols: [], connections: 0 };
let view = null;
let stale = true; // whether the server may know more than events told

// -- telling --------------------------------------------------------------------------------

let spokenLater = 0;
let began = 0;
let ended = 0;

/** Have a screen reader say it. */
function spoken(text) {
  say(by("spoken"), text);
}

/** The same of sessions, which come in crowds. */
function speakOfSessions() {
  if (spokenLater) return;
  spokenLater = setTimeout(() => {
    const parts = [began && `${several(began, "session")} began`, ended && `${several(ended, "session")} ended`];
    spoken(parts.filter(Boolean).join(", "));
    [spokenLater, began, ended] = [0, 0, 0];
  }, 2000);
}

/** Something that the user should know, until they have read it. */
function notice(text, kind) {
  const before = by("notices").querySelector(`[data-kind="${kind}"]`);
  if (before) {
    say(before.querySelector("span"), text);
    return;
  }
  const box = make("p", { class: "notice", role: "alert", "data-kind": kind }, make("span", {}, text));
  box.append(" ", make("button", { type: "button", "aria-label": "Dismiss", onclick: () => {
    box.remove();
    by("main").focus();
  } }, "OK"));
  by("notices").append(box);
}

function trouble(problem) {
  if (!(problem instanceof Problem)) throw problem;
  // That the server is away, or wants the token, is said at the top already.
  if (problem.status !== 0 && problem.status !== 401) notice(visible(problem.message), "trouble");
}

// -- loading --------------------------------------------------------------------------------

async function loadStatus() {
  try {
    status = await get("status");
  } catch (problem) {
    trouble(problem);
    return;
  }
  say(by("version"), status.version);
  const parts = [
    several(status.connections, "connection"), `${count(status.sessions_total)} since the start ${duration(status.uptime)} ago`,
    status.draining && "draining: no new ones", status.healthy === false && visible((status.problems ?? []).join("; ") || "in trouble"),
  ];
  say(by("server"), parts.filter(Boolean).join(" · "));
  by("drain").hidden = status.draining;
  by("resume").hidden = !status.draining;
}

/** The number of the last event that is in the list. */
async function loadSessions() {
  stale = false;
  try {
    const told = await get("sessions");
    sessions.load(told.sessions, told.seq);
    return told.seq;
  } catch (problem) {
    trouble(problem);
    return 0;
  }
}

/** The session that is shown, with all its events. */
async function loadSession(id) {
  try {
    const session = await get(`sessions/${id}`);
    sessions.put(session);
    if (diagram.id === id) diagram.load(session.events, session.missed, !session.ended);
  } catch (problem) {
    if (diagram.id === id) {
      diagram.load([]);
      if (!sessions.byId.has(id)) say(by("session-title"), `Session ${id}: ${problem.message}`);
    }
  }
  showFacts();
}

let refreshing = false;

/** What only the server knows of the session that is shown: whether it is held, whose program it seems to be. */
async function refreshSession() {
  const { id } = diagram;
  if (id === null || refreshing || !sessions.byId.has(id)) return;
  refreshing = true;
  try {
    const { events, ...session } = await get(`sessions/${id}`);
    sessions.put(session);
    if (diagram.id === id) diagram.add(events);
  } catch (problem) {
    trouble(problem);
  } finally {
    refreshing = false;
  }
  showFacts();
}

function showFacts() {
  const session = sessions.byId.get(diagram.id);
  const live = Boolean(session) && !session.ended;
  for (const id of ["close", "hold", "step", "release"]) by(id).hidden = !live;
  by("hold").hidden ||= !status.toy || session.held;
  by("step").hidden ||= !status.toy || !session.held;
  by("release").hidden ||= !status.toy || !session.held;
  say(by("held"), live && session.held ? "Held: the server waits before its next answer. Step lets it answer once." : "");
  if (!session) {
    by("facts").replaceChildren();
    return;
  }
  say(by("session-title"), `Session ${session.id}: ${who(session)}`);
  const wanted = factsOf(session);
  const box = by("facts");
  if (box.children.length !== wanted.length) {
    box.replaceChildren(...wanted.map(([name]) => make("div", {}, make("dt", {}, name), make("dd"))));
  }
  wanted.forEach(([, value], index) => say(box.children[index].lastElementChild, value));
}

// -- where we are ---------------------------------------------------------------------------

/** What the address asks for. */
function place() {
  const [, name, rest] = /^#?([a-z]*)=?(.*)$/s.exec(location.hash) ?? ["", "", ""];
  let parts;
  try {
    parts = rest.split("/").map(decodeURIComponent);
  } catch {
    parts = [""];
  }
  if (name === "session" && /^\d+$/.test(rest)) return { view: "sessions", session: Number(rest) };
  if (name === "mailbox" && parts[0]) return { view: "mailboxes", user: parts[0] };
  if (name === "message" && parts[0] && parts[1]) return { view: "mailboxes", user: parts[0], uid: parts[1] };
  if (name === "mailboxes" || name === "charts") return { view: name };
  return { view: "sessions" };
}

function go(first = false) {
  const to = place();
  view = to.view;
  for (const name of ["sessions", "mailboxes", "charts"]) by(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "sessions") {
    const id = to.session ?? null;
    by("session").hidden = id === null;
    document.body.classList.toggle("detail", id !== null);
    list.select(id);
    if (id !== diagram.id) {
      diagram.clear(id);
      if (id !== null) {
        say(by("session-title"), `Session ${id}`);
        by("as-text").href = `api/sessions/${id}/transcript`;
        by("as-text").download = `session-${id}.txt`;
        by("as-json").href = `api/sessions/${id}/events.jsonl`;
        by("as-json").download = `session-${id}.jsonl`;
        showFacts();
        loadSession(id);
      }
    }
    if (id !== null) by("session-title").focus();
    else if (!first) by("sessions-title").focus();
  } else {
    document.body.classList.toggle("detail", view === "mailboxes" && to.user !== undefined);
  }
  if (view === "mailboxes") {
    mailboxes.load();
    mailboxes.show(to.user ?? null, to.uid ?? null);
    if (to.user === undefined && !first) by("mailboxes-title").focus();
  }
  if (view === "charts") {
    charts();
    if (!first) by("charts-title").focus();
  }
  document.title = `${to.session ? `Session ${to.session} · ` : to.user ? `${visible(to.user)} · ` : ""}pop3toy inspector`;
}

// -- acting ---------------------------------------------------------------------------------

async function act(path, done) {
  try {
    await post(path);
    spoken(done);
  } catch (problem) {
    trouble(problem);
  }
}

function onSession(button, verb, done, question = null) {
  by(button).addEventListener("click", async () => {
    const { id } = diagram;
    const name = `session ${id}`;
    if (question && !(await confirmed(`${question[0]} ${name}?`, question[1], question[0]))) return;
    await act(`sessions/${id}/${verb}`, `${done} ${name}.`);
    await refreshSession();
    // A button that has gone takes the focus with it.
    if (by(button).hidden) (by("step").hidden ? by("session-title") : by("step")).focus();
  });
}

onSession("close", "close", "Closed", ["Close", "The client loses the connection; what it marked as deleted stays."]);
onSession("hold", "hold", "Held", ["Hold", "The server will answer nothing more until you let it, step by step."]);
onSession("step", "step", "One step of");
onSession("release", "release", "Released");

by("drain").addEventListener("click", async () => {
  if (!(await confirmed("Drain the server?", "It takes no new connections; those that there are may finish.", "Drain"))) return;
  await act("drain", "Draining.");
  await loadStatus();
  by("resume").focus();
});
by("resume").addEventListener("click", async () => {
  await act("resume", "New connections are let in.");
  await loadStatus();
  by("drain").focus();
});
by("skip").addEventListener("click", (event) => {
  event.preventDefault();
  by("main").focus();
});

// -- following ------------------------------------------------------------------------------

let startedAt = null;

/** Another server than before, if it was started again: numbers begin anew. */
async function restarted() {
  await loadStatus();
  const start = Date.now() / 1000 - (status.uptime ?? 0);
  const again = startedAt !== null && Math.abs(start - startedAt) > 5;
  startedAt = start;
  return again;
}

let mailboxesLater = 0;

function apply(events) {
  const shown = [];
  for (const event of events) {
    sessions.apply(event);
    if (event.session === diagram.id) shown.push(event);
    if (event.event === "Connected") began += 1;
    else if (event.event === "Ended") ended += 1;
    else if (event.event === "Noted" && event.session === diagram.id) refreshSession();
    if (/^(?:LoggedIn|Ended|Delivered|MessageRemoved)$/.test(event.event) && view === "mailboxes" && !mailboxesLater) {
      mailboxesLater = setTimeout(() => {
        mailboxesLater = 0;
        if (view === "mailboxes") mailboxes.load();
      }, 500);
    }
  }
  stale = true;
  if (shown.length) diagram.add(shown);
  if (began || ended) speakOfSessions();
  rowsLater();
}

let rowsDue = false;

function rowsLater() {
  if (rowsDue) return;
  rowsDue = true;
  setTimeout(() => requestAnimationFrame(() => {
    rowsDue = false;
    list.update();
    showFacts();
  }), ROWS);
}

function streamIs(text, kind) {
  say(by("stream"), text);
  by("stream").className = kind;
}

async function everything() {
  await loadSessions();
  rowsLater();
  if (diagram.id !== null) {
    if (!diagram.loading) await refreshSession();
    else await loadSession(diagram.id);
  }
}

let missed = 0;

await loadStatus();
const since = await loadSessions();
list.update();
go(true);

follow(since, {
  events: apply,
  missed(number) {
    missed += number;
    notice(`${several(missed, "event")} missed: they came faster than this page could take them. The list was loaded again.`, "missed");
    diagram.gap(`${several(number, "event")} missed, of this session or of others`);
    everything();
  },
  async opened() {
    streamIs("live", "fine");
    if (!(await restarted())) return;
    sessions.clear();
    diagram.clear(diagram.id);
    notice("The server was started again: this is another list.", "restarted");
    await everything();
  },
  async lost(refused) {
    streamIs("not connected, trying again …", "bad");
    if (!refused) return;
    try {
      await get("status");
    } catch (problem) {
      if (problem.status === 401 || problem.status === 403) {
        streamIs("not let in: open the link that the server's log shows", "bad");
      }
    }
  },
});

// The token has become a cookie: it is not left in the address, where others read it.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
window.addEventListener("hashchange", () => go());

setInterval(() => {
  list.tick();
}, 1000);
setInterval(async () => {
  if (document.hidden) return;
  await loadStatus();
  if (stale) {
    await loadSessions();
    rowsLater();
  }
  if (view === "charts") await charts();
}, EVERY);
