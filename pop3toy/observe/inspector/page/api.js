// The API under api/, as docs describe it; a refusal is a Problem (RFC 9457).

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(method, path) {
  let answer;
  try {
    answer = await fetch(`api/${path}`, { method, headers: { Accept: "application/json" }, cache: "no-store" });
  } catch {
    throw new Problem(0, "The server does not answer.");
  }
  const text = await answer.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    // Not ours, then: a proxy's page, perhaps.
  }
  if (answer.ok) return body;
  throw new Problem(answer.status, body?.detail || body?.title || `${answer.status} ${answer.statusText}`);
}

export const get = (path) => ask("GET", path);
export const post = (path) => ask("POST", path);
export const remove = (path) => ask("DELETE", path);

/** The path of a mailbox, or of a message in it, below api/. */
export function messagePath(user, uid = null, ...further) {
  const parts = ["mailboxes", user, "messages", ...(uid === null ? [] : [uid]), ...further];
  return parts.map(encodeURIComponent).join("/");
}
