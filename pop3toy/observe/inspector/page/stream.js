// The events of the server, as they happen: batched, so that a burst costs one turn.

const MOST = 20000; // lines that wait for a turn; a page in the background gets few
const PER_TURN = 1500;
const RETRY = 3000; // ms

/**
 * Follow api/events, from what comes behind event number `since`.
 * `told.events([EVENT])`, `told.missed(n)` (n events will not come), `told.opened()`, `told.lost(refused)`.
 */
export function follow(since, told) {
  let waiting = [];
  let due = false;
  let dropped = 0;

  function turn() {
    due = false;
    const now = waiting.slice(0, PER_TURN);
    waiting = waiting.slice(PER_TURN);
    if (dropped) {
      told.missed(dropped);
      dropped = 0;
    }
    const events = [];
    for (const line of now) {
      try {
        const event = JSON.parse(line);
        since = event.seq;
        events.push(event);
      } catch {
        told.missed(1);
      }
    }
    if (events.length) told.events(events);
    if (waiting.length) later();
  }

  function later() {
    if (due) return;
    due = true;
    // A page that nobody sees has no animation frames.
    if (document.hidden) setTimeout(turn, 500);
    else requestAnimationFrame(turn);
  }

  document.addEventListener("visibilitychange", () => {
    due = false;
    if (waiting.length) later();
  });

  function open() {
    const source = new EventSource(`api/events?since=${since}`);
    source.addEventListener("open", () => told.opened());
    source.addEventListener("message", (message) => {
      waiting.push(message.data);
      if (waiting.length > MOST) {
        dropped += waiting.length - MOST / 2;
        waiting = waiting.slice(-MOST / 2);
      }
      later();
    });
    source.addEventListener("missed", (message) => {
      told.missed(Number(JSON.parse(message.data).events) || 1);
    });
    source.addEventListener("error", () => {
      // While it is CONNECTING the browser tries again by itself, with Last-Event-ID.
      const refused = source.readyState === EventSource.CLOSED;
      told.lost(refused);
      if (refused) setTimeout(open, RETRY);
    });
  }

  open();
}
