// One number against another: a mark per configuration, with the intervals of both.
import { line } from "../shared/axes.js";
import { el, svg } from "../shared/elements.js";
import { footprint, placeNames } from "../shared/labels.js";
import { shape, standApart } from "../shared/marks.js";
import { figure, plot } from "../shared/plot.js";
import { methods } from "./measured.js";
import { pointing } from "./pointing.js";
import { showNumber } from "./study-table.js";
import { view } from "./view.js";

const MANY = 80; // marks from which intervals are drawn only of what is pointed at

export function methodMark(row, x, y) {
  return shape(methods.indexOf(row.method), x, y, row.kind !== "qat");
}

/** Return the two ends of an axis around values, and 0 where it belongs there. */
export function around(values, { zero = true, pad = 0.06 } = {}) {
  let low = zero ? 0 : Infinity, high = zero ? 0 : -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  const room = (high - low) * pad || Math.abs(high) * pad || 0.01;
  return { from: low - room, to: high + room };
}

/** Return a picture's width in its column, in pixels. */
export function roomFor(share = 1) {
  const width = document.getElementById("content").clientWidth;
  return Math.max(330, Math.min(1180, (width < 900 ? width : width * share) - 36));
}

/**
 * Return a figure of points `{ row, x, y, xLow, xHigh, yLow, yHigh, say }` in units of the axes.
 * `name` is the column that a mark opens; `more(chart)` adds what is beneath the marks; `apart` moves marks
 * of one x aside; `named(point)` says which have their names
 * beside them; `whole` shows all, however far outside, as an axis does that is `whole`.
 */
export function scatter({ title, note, name, x, y, points, more = (_chart) => [], wide = false, apart = false, named = null, whole = false }) {
  const ends = (point, axis) => [point[axis], point[`${axis}Low`] ?? point[axis], point[`${axis}High`] ?? point[axis]];
  const few = points.length <= MANY, clipped = view.range === "all" || whole ? [] : ["x", "y"].filter((axis) => !{ x, y }[axis].whole);
  const spread = (axis) => points.flatMap((point) => (few ? ends(point, axis) : [point[axis]]));
  const fences = Object.fromEntries(["x", "y"].map((axis) => [axis, clipped.includes(axis) ? fenceOf(points.map((point) => point[axis])) : [-Infinity, Infinity]]));
  const inside = (axis) => spread(axis).map((value) => Math.max(fences[axis][0], Math.min(fences[axis][1], value)));
  const beyond = points.filter((point) => ["x", "y"].some((axis) => point[axis] < fences[axis][0] || point[axis] > fences[axis][1])).length;
  const width = roomFor(wide ? 1 : 0.5), height = Math.round(Math.min(wide ? 440 : 380, 200 + width / 3));
  const chart = plot({
    name: title, width, height, left: 62,
    x: { ...around(inside("x"), x), ...x }, y: { ...around(inside("y"), y), ...y },
  });
  const clipX = within(chart.x, 62, width - 12), clipY = within(chart.y, 10, height - 42);
  for (const [at, axis] of [["x", x], ["y", y]]) {
    if (axis.zero === false) continue;
    const [from, to] = at === "x" ? [chart.y.from, chart.y.to] : [chart.x.from, chart.x.to];
    chart.add(at === "x" ? line(chart.x(0), chart.y(from), chart.x(0), chart.y(to), "zero") : line(chart.x(from), chart.y(0), chart.x(to), chart.y(0), "zero"));
  }
  chart.add(...more(chart));
  /** @type {any[]} */
  const drawn = [...points].sort((a, b) => a.x - b.x || a.y - b.y).map((point) => ({ point, x: clipX(point.x), y: clipY(point.y) }));
  if (apart) standApart(drawn, roomBetween(drawn.map((at) => at.x)));
  for (const at of drawn) {
    const { point } = at;
    const lines = () => [
      point.yLow === null || point.yLow === undefined ? null : line(at.x, clipY(point.yLow), at.x, clipY(point.yHigh), "bar"),
      point.xLow === null || point.xLow === undefined ? null : line(clipX(point.xLow), at.y, clipX(point.xHigh), at.y, "bar"),
    ].filter(Boolean);
    Object.assign(at, { lines, title: `${point.row.model} / ${point.row.text}`, say: point.say });
  }
  if (few) for (const { lines } of drawn) chart.add(lines());
  chart.add(drawn.map(({ point, x: across, y: up }) => methodMark(point.row, across, up)));
  if (named) chart.add(names(drawn, named, { left: 64, right: width - 14, top: 12, bottom: height - 44 }));
  const { node, told } = pointing(chart, drawn, `${title}: ${x.label} and ${y.label}`, ({ point }) => showNumber(point.row, point.key || name));
  const edge = beyond ? `${beyond} far outside stand at the edge` : "";
  return figure(title, [note, edge].filter(Boolean).join("; "), [node, told], {
    caption: title,
    columns: [{ title: "Model" }, { title: "Configuration", names: true }, { title: "Numbers" }],
    rows: drawn.slice(0, 200).map(({ point }) => [point.row.model, el("code", {}, point.row.text), point.say()]),
  });
}

/** Return the values beyond which a mark is far outside: three times the middle half's range away from it. */
function fenceOf(values) {
  if (values.length < 8) return [-Infinity, Infinity];
  const sorted = [...values].sort((a, b) => a - b), at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const room = 3 * (at(0.75) - at(0.25));
  return room > 0 ? [at(0.25) - room, at(0.75) + room] : [-Infinity, Infinity];
}

/** Return how wide marks of one place may stand: most of the way to the next place. */
function roomBetween(places) {
  const sorted = [...new Set(places)].sort((a, b) => a - b);
  return Math.min(160, ...sorted.slice(1).map((place, at) => 0.7 * (place - sorted[at])).filter((gap) => gap > 4));
}

function within(place, low, high) {
  return (value) => Math.max(low, Math.min(high, place(value)));
}

/** Return the names of some marks, beside them. */
function names(drawn, named, bounds) {
  const wanted = drawn.filter(({ point }) => named(point)).map((at) => ({ ...at, text: at.point.row.text }));
  return placeNames(wanted, drawn.flatMap((at) => footprint(at)), bounds).flatMap((place, at) => (place ? [
    place.from ? line(place.from.x, place.from.y, place.x, place.y - 4, "leader") : null,
    svg("text", { x: place.x, y: place.y, "text-anchor": place.anchor, class: "name on" }, wanted[at].text)] : []));
}
