// Elements and texts.  What comes from the network is only ever put in as text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`onclick` and the like are listeners, false and null are left out) and children. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same within an SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

export const by = (id) => document.getElementById(id);

/** Set a text only if it is another one: what does not change needs no layout, and is not read out again. */
export function say(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

// Controls but line feed and tab, what turns the direction of writing or takes no room, and octets that are no UTF-8.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Octets as text, with line ends as this page has them, and what one would not see, or be misled by, written out. */
export function visible(text) {
  return text.replaceAll("\r\n", "\n").replace(UNSEEN, (found) => {
    const code = found.charCodeAt(0);
    if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16)}`;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
  });
}

const whole = new Intl.NumberFormat("en");

/** 12345 as 12,345. */
export const count = (number) => whole.format(number);

/** "1 message", "2 messages". */
export const several = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** Octets, short: 999, 1.2 k, 3.4 M. */
export function octets(number) {
  if (number < 1000) return String(number);
  for (const [unit, size] of [["k", 1e3], ["M", 1e6], ["G", 1e9]]) {
    if (number < size * 1000) return `${(number / size).toFixed(number < size * 100 ? 1 : 0)} ${unit}`;
  }
  return `${(number / 1e12).toFixed(1)} T`;
}

/** Seconds, short: 3 s, 2 min, 4 h, 5 d. */
export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** The time of day of an ISO time, as this computer's clock shows it. */
export function clock(iso, fraction = false) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return "";
  const text = time.toLocaleTimeString("en-GB");
  return fraction ? `${text}.${String(time.getMilliseconds()).padStart(3, "0")}` : text;
}
