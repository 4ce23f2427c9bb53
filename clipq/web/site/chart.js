// The full chart of one case: loss with its interval against the margin, verdicts, values.
import { extent, gridRows, line, scale, ticks } from "../shared/axes.js";
import { svg } from "../shared/elements.js";
import { day, number, times } from "../shared/format.js";
import { VERDICTS } from "../shared/verdicts.js";
import { pageAddress } from "./links.js";
import { site, Z95 } from "./model.js";
import { overRuns } from "./sparkline.js";

const EDGE = { left: 64, right: 56, top: 26, gap: 34, lane: 16, bottom: 40 };
const HEIGHTS = { loss: 270, values: 120 };
const MARKER_SPACING = 11; // pixels between runs from which every run has a marker

/**
 * Draw a case's history between two runs.
 * `told(run)` is called as the reader moves over the runs; the returned node has `pick(at)`.
 */
export function drawChart(item, found, { from, to, width, told }) {
  const left = EDGE.left, right = width - EDGE.right;
  const lossTop = EDGE.top, lossEnd = lossTop + HEIGHTS.loss;
  const laneTop = lossEnd + 8, valuesTop = laneTop + EDGE.lane + EDGE.gap;
  const valuesEnd = valuesTop + HEIGHTS.values, height = valuesEnd + EDGE.bottom;
  const x = scale(from - 0.5, to + 0.5, left, right);
  const inside = (values) => values.map((value, at) => (at < from || at > to ? NaN : value));
  const loss = inside(found.loss), error = inside(found.error);
  const y = lossScale(item, loss, error, lossTop, lossEnd);
  const visible = item.steps.filter((step) => step.run.at > from && step.run.at <= to);
  const cross = svg("g", { class: "cross", visibility: "hidden" });
  const picture = svg("svg", {
    class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, tabindex: "0", role: "application",
    "aria-roledescription": "chart", "aria-label": `Chart of ${item.id}. Arrow keys move from run to run, `
      + "page keys from step to step, Home and End to the ends, Enter opens the run.",
  },
  yAxis(y, left, right, axisTitle("Loss", item.unit), lossTop),
  limits(item, y, left, right, lossTop),
  levels(item, x, y, from, to),
  svg("path", { class: "band", d: intervalBand(loss, error, x, y) }),
  svg("path", { class: "trend", d: overRuns(loss, x, y) }),
  limitNames(item, y, right),
  stepMarks(visible, x, lossTop, valuesEnd),
  markers(found, loss, x, y, from, to),
  verdictLane(found.verdicts, x, laneTop, from, to),
  valueCurves(item, inside(found.observed), inside(found.baseline), x, valuesTop, valuesEnd, left, right),
  xAxis(x, from, to, valuesEnd, width),
  cross);
  interact(picture, { item, found, x, y, from, to, cross, told, lossTop, valuesEnd, width });
  return picture;
}

/** Loss and its interval set the range; FP32 and the margin belong to it unless they are far away. */
function lossScale(item, loss, error, top, end) {
  const all = loss.filter(Number.isFinite);
  loss.forEach((value, at) => {
    if (Number.isFinite(value) && error[at] > 0) all.push(value - Z95 * error[at], value + Z95 * error[at]);
  });
  const [low, high] = all.length ? extent(all) : [0, item.limit || 1];
  const near = [0, item.limit].filter((value) => value !== null
    && value > low - 12 * (high - low || Infinity) && value < high + 12 * (high - low || Infinity));
  const [bottom, upper] = extent([low, high, ...near]);
  const pad = 0.07 * (upper - bottom || Math.abs(upper) || 1);
  return scale(bottom - pad, upper + pad, end, top);
}

function axisTitle(name, unit) {
  return unit ? `${name} (${unit})` : name;
}

function yAxis(y, left, right, title, top) {
  return svg("g", { class: "axis", "aria-hidden": "true" },
    svg("text", { x: left - 56, y: top - 11, class: "title" }, title),
    gridRows(ticks(y.from, y.to), y, { left, right, text: number }));
}

function xAxis(x, from, to, top, width) {
  const wanted = Math.max(2, Math.floor(width / 130));
  const shown = ticks(from, to, wanted).filter((at) => Number.isInteger(at) && at >= from && at <= to);
  return svg("g", { class: "axis", "aria-hidden": "true" }, shown.map((at) => svg("g", {},
    line(x(at), top, x(at), top + 5, "notch"),
    svg("text", { x: x(at), y: top + 18, "text-anchor": "middle" }, `run ${site.runs[at].number}`),
    svg("text", { x: x(at), y: top + 33, "text-anchor": "middle", class: "quiet" }, day(site.runs[at].started)))));
}

/** What is worse than the margin is shaded; FP32's level is a line. */
function limits(item, y, left, right, top) {
  const parts = [];
  const within = (value) => value !== null && value > y.from && value < y.to;
  if (within(item.limit)) {
    parts.push(
      svg("rect", { class: "beyond", x: left, y: top, width: right - left, height: Math.max(0, y(item.limit) - top) }),
      line(left, y(item.limit), right, y(item.limit), "limit"));
  }
  if (!item.floor && within(0)) parts.push(line(left, y(0), right, y(0), "zero"));
  return svg("g", { "aria-hidden": "true" }, parts);
}

/** What the two lines are, beside them; where they nearly meet, the margin's name is enough. */
function limitNames(item, y, right) {
  const there = (value) => value !== null && value > y.from && value < y.to;
  const text = (value, name) => svg("text", { class: "limit", x: right + 6, y: y(value) + 4 }, name);
  const both = there(item.limit) && Math.abs(y(item.limit) - y(0)) < 14;
  return svg("g", { "aria-hidden": "true" }, there(item.limit) ? text(item.limit, item.floor ? "limit" : "margin") : null,
    there(0) && !both ? text(0, "FP32") : null);
}

/** The levels that steps divide the history into. */
function levels(item, x, y, from, to) {
  if (!item.steps.length) return null;
  const edges = [0, ...item.steps.map((step) => step.run.at), site.runs.length];
  const heights = [item.steps[0].before, ...item.steps.map((step) => step.after)];
  return svg("g", { class: "steps", "aria-hidden": "true" }, heights.map((height, at) => {
    const start = Math.max(edges[at], from), end = Math.min(edges[at + 1] - 1, to);
    const shown = height !== null && end >= start && height > y.from && height < y.to;
    return shown ? line(x(start - 0.5), y(height), x(end + 0.5), y(height), "level") : null;
  }));
}

function intervalBand(loss, error, x, y) {
  let path = "", upper = [], lower = [];
  const finish = () => {
    if (upper.length === 1) { upper.push([upper[0][0] + 1, upper[0][1]]); lower.push([lower[0][0] + 1, lower[0][1]]); }
    if (upper.length) path += `M${upper.map((point) => point.join(" ")).join("L")}L${lower.reverse().map((point) => point.join(" ")).join("L")}Z`;
    [upper, lower] = [[], []];
  };
  loss.forEach((value, at) => {
    if (!Number.isFinite(value) || !(error[at] > 0)) { finish(); return; }
    upper.push([x(at), y(value + Z95 * error[at])]);
    lower.push([x(at), y(value - Z95 * error[at])]);
  });
  finish();
  return path;
}

/** A line per step; its size is written where the one before leaves room. */
function stepMarks(steps, x, top, end) {
  let free = -Infinity;
  return steps.map((step) => {
    const at = x(step.run.at - 0.5), room = at - free;
    const symbol = step.worse ? "▲" : "▼";
    const text = room < 10 ? "" : room < 44 || step.margins === null ? symbol : `${symbol} ${times(step.size)}`;
    if (text) free = at + (text === symbol ? 6 : 24);
    return svg("g", { class: `step ${step.worse ? "worse" : "better"}`, "aria-hidden": "true" },
      line(at, top, at, end, null),
      text ? svg("text", { x: at, y: top - 8, "text-anchor": "middle" }, text) : null);
  });
}

/** A shape for each verdict, on every run where there is room, else where the verdict changes. */
function markers(found, loss, x, y, from, to) {
  const all = x(from + 1) - x(from) >= MARKER_SPACING;
  const group = svg("g", { class: "markers", "aria-hidden": "true" });
  let before = null;
  for (let at = from; at <= to; at += 1) {
    const verdict = found.verdicts[at];
    if (!verdict) continue;
    const wanted = all || verdict !== before || at === to;
    before = verdict;
    if (!Number.isFinite(loss[at])) continue;
    if (wanted) group.append(verdictMarker(verdict, x(at), y(loss[at])));
    if (found.odd.has(at)) group.append(svg("circle", { class: "odd", cx: x(at), cy: y(loss[at]), r: 8 }));
  }
  return group;
}

export function verdictMarker(verdict, x, y) {
  const shapes = new Map([
    ["pass", "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0Z"],
    ["improved", "M0 -5L4.8 3.6H-4.8Z"],
    ["inconclusive", "M0 -5L5 0L0 5L-5 0Z"],
    ["suspect", "M0 -5L5 0L0 5L-5 0Z"],
    ["waived", "M-3.6 -3.6H3.6V3.6H-3.6Z"],
    ["fail", "M-4 -4L4 4M-4 4L4 -4"],
  ]);
  const open = verdict === "inconclusive" || verdict === "waived";
  return svg("path", { class: `marker v-${verdict}${open ? " open" : ""}${verdict === "fail" ? " stroke" : ""}`,
    d: shapes.get(verdict) || "M-5 0H5M0 -5V5", transform: `translate(${x} ${y})` });
}

/** One strip of verdicts under the loss: also runs without a loss show theirs. */
function verdictLane(verdicts, x, top, from, to) {
  const group = svg("g", { class: "lane", "aria-hidden": "true" });
  for (let start = from; start <= to;) {
    let end = start;
    while (end < to && verdicts[end + 1] === verdicts[start]) end += 1;
    if (verdicts[start]) {
      const width = Math.max(1, x(end + 0.5) - x(start - 0.5));
      group.append(svg("rect", { class: `v-${verdicts[start]}`, x: x(start - 0.5), y: top, width, height: EDGE.lane }));
      if (width > 14) {
        const word = width > 90 ? ` ${verdicts[start]}` : "";
        group.append(svg("text", { class: `v-${verdicts[start]}`, x: x(start - 0.5) + width / 2, y: top + 12, "text-anchor": "middle" },
          VERDICTS.get(verdicts[start]) + word));
      }
    }
    start = end + 1;
  }
  return group;
}

function valueCurves(item, observed, baseline, x, top, end, left, right) {
  const all = [...observed, ...baseline].filter(Number.isFinite);
  if (!all.length) return null;
  const [low, high] = extent(all);
  const pad = 0.12 * (high - low || Math.abs(high) || 1);
  const y = scale(low - pad, high + pad, end, top);
  return svg("g", {}, yAxis(y, left, right, axisTitle("Value", item.unit), top),
    svg("path", { class: "fp32", d: overRuns(baseline, x, y) }),
    svg("path", { class: "observed", d: overRuns(observed, x, y) }));
}

function interact(picture, { item, found, x, y, from, to, cross, told, lossTop, valuesEnd, width }) {
  let at = null;
  picture.pick = (run, { quietly = false } = {}) => {
    at = Math.min(to, Math.max(from, run));
    cross.setAttribute("visibility", "visible");
    const dot = Number.isFinite(found.loss[at])
      ? svg("circle", { cx: x(at), cy: y(found.loss[at]), r: 5 }) : null;
    cross.replaceChildren(line(x(at), lossTop, x(at), valuesEnd, null), ...(dot ? [dot] : []));
    told(at, { quietly });
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    picture.pick(Math.round(x.value((event.clientX - box.left) * (width / box.width))), { quietly: true });
  });
  picture.addEventListener("focus", () => { if (at === null) picture.pick(to); });
  picture.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const here = at ?? to;
    const marks = item.steps.map((step) => step.run.at);
    const moves = new Map([
      ["ArrowLeft", () => here - 1], ["ArrowRight", () => here + 1], ["Home", () => from], ["End", () => to],
      ["PageUp", () => marks.findLast((mark) => mark < here) ?? from],
      ["PageDown", () => marks.find((mark) => mark > here) ?? to],
    ]);
    if (event.key === "Enter") { location.hash = pageAddress("runs", [site.runs[here].number]); return; }
    if (!moves.has(event.key)) return;
    event.preventDefault();
    picture.pick(moves.get(event.key)());
  });
}
