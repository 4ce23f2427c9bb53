// Trends the size of a word.
import { line, pathThrough, scale } from "../shared/axes.js";
import { el, svg } from "../shared/elements.js";
import { count, number } from "../shared/format.js";
import { historyOf } from "./model.js";

const SPARK = { width: 150, height: 30, edge: 3 };

/** The loss over all runs against the margin, its steps as ticks, the latest verdict at its end. */
export function lossSpark(item) {
  const box = el("span", { class: "spark" });
  historyOf(item).then((found) => box.replaceChildren(drawLoss(item, found)), () => box.replaceChildren("not loaded"));
  return box;
}

function drawLoss(item, { loss }) {
  const values = loss.filter(Number.isFinite);
  if (!values.length) return el("span", { class: "quiet" }, "no loss");
  const low = Math.min(0, ...values), high = Math.max(item.limit ?? 0, 0, ...values);
  const { x, y } = sparkScale(loss.length, low, high);
  const end = loss.findLastIndex(Number.isFinite);
  const label = `Loss over ${count(loss.length, "run")}: ${number(values[0])} first, `
    + `${number(values[values.length - 1])} last; ${count(item.steps.length, "step")}`;
  return svg("svg", { class: "sparkline", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, role: "img", "aria-label": label },
    item.steps.map((step) => line(x(step.run.at), 0, x(step.run.at), SPARK.height, `tick ${step.worse ? "worse" : "better"}`)),
    item.limit === null ? null : line(0, y(item.limit), SPARK.width, y(item.limit), "limit"),
    item.floor ? null : line(0, y(0), SPARK.width, y(0), "zero"),
    svg("path", { class: "trend", d: overRuns(loss, x, y) }),
    svg("circle", { class: `end v-${item.verdict}`, cx: x(end), cy: y(loss[end]), r: 2.6 }));
}

/** How many cases of a pair did not block, run by run. */
export function passedSpark(pair) {
  const share = [];
  pair.passed.forEach((amount, at) => {
    // A run that left the pair out says nothing new about it.
    share.push(pair.present[at] ? amount / pair.present[at] : at ? share[at - 1] : NaN);
  });
  const values = share.filter(Number.isFinite);
  const low = Math.min(1, ...values);
  const { x, y } = sparkScale(share.length, low > 0.9 ? 0.9 : low - 0.05, 1);
  return svg("svg", { class: "sparkline", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "area", d: `${overRuns(share, x, y)}V${SPARK.height}H${x(share.findIndex(Number.isFinite))}Z` }),
    svg("path", { class: "trend", d: overRuns(share, x, y) }));
}

function sparkScale(runs, low, high) {
  const { width, height, edge } = SPARK;
  return { x: scale(0, runs - 1, edge, width - edge), y: scale(low, high, height - edge, edge) };
}

/** Return a path through the values of the runs that have one. */
export function overRuns(values, x, y) {
  return pathThrough(values.map((value, at) => [x(at), Number.isFinite(value) ? y(value) : NaN]));
}
