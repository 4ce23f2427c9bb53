// One number against another: a mark per configuration, with the intervals of both.
import { line } from "../shared/axes.js";
import { el } from "../shared/elements.js";
import { shape } from "../shared/marks.js";
import { figure, plot } from "../shared/plot.js";
import { methods } from "./measured.js";
import { pointing } from "./pointing.js";
import { showNumber } from "./study-table.js";

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
 * `name` is the column that a mark opens; `more(chart)` adds what is beneath the marks.
 */
export function scatter({ title, note, name, x, y, points, more = (_chart) => [], order = (point) => point.x, wide = false }) {
  const ends = (point, axis) => [point[axis], point[`${axis}Low`] ?? point[axis], point[`${axis}High`] ?? point[axis]];
  const few = points.length <= MANY;
  const spread = (axis) => points.flatMap((point) => (few ? ends(point, axis) : [point[axis]]));
  const width = roomFor(wide ? 1 : 0.5);
  const chart = plot({
    name: title, width, height: Math.round(Math.min(wide ? 440 : 380, 200 + width / 3)), left: 62,
    x: { ...around(spread("x"), x), ...x }, y: { ...around(spread("y"), y), ...y },
  });
  const clipX = within(chart.x, 62, width - 12), clipY = (value) => chart.y(value);
  for (const [at, axis] of [["x", x], ["y", y]]) {
    if (axis.zero === false) continue;
    const [from, to] = at === "x" ? [chart.y.from, chart.y.to] : [chart.x.from, chart.x.to];
    chart.add(at === "x" ? line(chart.x(0), chart.y(from), chart.x(0), chart.y(to), "zero") : line(chart.x(from), chart.y(0), chart.x(to), chart.y(0), "zero"));
  }
  chart.add(...more(chart));
  const drawn = [...points].sort((a, b) => order(a) - order(b)).map((point) => {
    const at = { x: chart.x(point.x), y: chart.y(point.y) };
    const lines = () => [
      point.yLow === null || point.yLow === undefined ? null : line(at.x, clipY(point.yLow), at.x, clipY(point.yHigh), "bar"),
      point.xLow === null || point.xLow === undefined ? null : line(clipX(point.xLow), at.y, clipX(point.xHigh), at.y, "bar"),
    ].filter(Boolean);
    return { ...at, point, lines, title: `${point.row.model} / ${point.row.text}`, say: point.say };
  });
  if (few) for (const { lines } of drawn) chart.add(lines());
  chart.add(drawn.map(({ point, x: across, y: up }) => methodMark(point.row, across, up)));
  const { node, told } = pointing(chart, drawn, `${title}: ${x.label} and ${y.label}`, ({ point }) => showNumber(point.row, name));
  return figure(title, note, [node, told], {
    caption: title,
    columns: [{ title: "Model" }, { title: "Configuration", names: true }, { title: "Numbers" }],
    rows: drawn.slice(0, 200).map(({ point }) => [point.row.model, el("code", {}, point.row.text), point.say()]),
  });
}

function within(place, low, high) {
  return (value) => Math.max(low, Math.min(high, place(value)));
}
