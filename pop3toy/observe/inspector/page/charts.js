// The last hour, minute by minute.

import { get } from "./api.js";
import { by, clock, count, draw, make, octets } from "./dom.js";

const MINUTES = 60;
const WIDTH = 420;
const HEIGHT = 160;
const LEFT = 52;
const BOTTOM = 22;
const TOP = 8;

const seconds = (value) => (value < 0.001 ? `${(value * 1e6).toFixed(0)} µs` : value < 1 ? `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(1)} s`);

const CHARTS = [
  { title: "Sessions", unit: "a minute", show: count, lines: [["began", "sessions"], ["at once", "live"]] },
  { title: "Logins", unit: "a minute", show: count, lines: [["succeeded", "logins"], ["failed", "failed"]] },
  { title: "Octets", unit: "a minute", show: octets, lines: [["sent", "sent"], ["received", "received"]] },
  { title: "Time to answer", unit: "", show: seconds, lines: [["mean", "answer_mean"], ["longest", "answer_max"]] },
];

/** A round number that is not below. */
function above(value, smallest) {
  if (!(value > 0)) return smallest;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

function chart({ title, unit, show, lines }, minutes) {
  const values = lines.flatMap(([, field]) => minutes.map((minute) => minute[field] ?? 0));
  const top = above(Math.max(0, ...values), show === seconds ? 0.001 : 1);
  const x = (index) => LEFT + ((WIDTH - LEFT - 8) * (MINUTES - minutes.length + index)) / (MINUTES - 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} ${unit}: ${words()}` });

  function words() {
    return lines.map(([name, field]) => `${name} at most ${show(Math.max(0, ...minutes.map((minute) => minute[field] ?? 0)))}`).join(", ");
  }

  for (const share of [0, 0.5, 1]) {
    const height = y(top * share);
    picture.append(
      draw("line", { class: "grid", x1: LEFT, x2: WIDTH - 8, y1: height, y2: height }),
      draw("text", { x: LEFT - 6, y: height + 4, "text-anchor": "end" }, top === 1 && share === 0.5 ? "" : show(top * share)),
    );
  }
  minutes.forEach((minute, index) => {
    if ((minutes.length - 1 - index) % 15 === 0) {
      const anchor = index === minutes.length - 1 ? "end" : "middle";
      picture.append(draw("text", { x: x(index), y: HEIGHT - 6, "text-anchor": anchor }, clock(minute.time).slice(0, 5)));
    }
  });
  lines.forEach(([, field], number) => {
    const runs = [[]];
    minutes.forEach((minute, index) => {
      if (minute[field] == null) runs.push([]);
      else runs.at(-1).push(`${x(index).toFixed(1)},${y(minute[field]).toFixed(1)}`);
    });
    for (const run of runs) {
      if (run.length > 1) picture.append(draw("polyline", { class: `line${number}`, points: run.join(" ") }));
      // The last one, so that a minute alone is seen too.
      const [cx, cy] = run.at(-1)?.split(",") ?? [];
      if (cx) picture.append(draw("circle", { class: `line${number}`, cx, cy, r: "3" }));
    }
  });
  const key = make("p", { class: "key" }, ...lines.map(([name], number) => make(
    "span", {}, draw("svg", { viewBox: "0 0 24 8", width: "24", height: "8", "aria-hidden": "true" },
      draw("line", { class: `line${number}`, x1: "1", x2: "23", y1: "4", y2: "4" })), ` ${name} `,
  )));
  return make("figure", {}, make("figcaption", {}, title, unit && make("span", { class: "quiet" }, ` ${unit}`)), key, picture);
}

function table(minutes) {
  const columns = CHARTS.flatMap(({ title, lines, show }) => lines.map(([name, field]) => [`${title}: ${name}`, field, show]));
  return make("details", { id: "numbers" }, make("summary", {}, "The same as numbers"), make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Numbers" }, make(
    "table", {},
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Minute"), ...columns.map(([name]) => make("th", { scope: "col", class: "number" }, name)))),
    make("tbody", {}, ...minutes.toReversed().map((minute) => make(
      "tr", {}, make("th", { scope: "row" }, clock(minute.time).slice(0, 5)),
      ...columns.map(([, field, show]) => make("td", { class: "number" }, minute[field] == null ? "" : show(minute[field]))),
    ))),
  )));
}

/** Draw them anew. */
export async function charts() {
  let minutes;
  try {
    ({ minutes } = await get("history"));
  } catch (problem) {
    by("charts").replaceChildren(make("p", {}, problem.message));
    return;
  }
  // Whoever reads the numbers is not disturbed.
  if (by("numbers")?.open && by("numbers").contains(document.activeElement)) return;
  const open = by("numbers")?.open ?? false;
  by("charts").replaceChildren(...CHARTS.map((one) => chart(one, minutes)), table(minutes));
  by("numbers").open = open;
}
