// Charts of one picture each. A chart has a name for readers who do not see it, and its numbers as a
// table below.
import { gridRows, line, logTicks, pathThrough, scale, ticks } from "./axes.js";
import { el, lazyDetails, legend, svg } from "./elements.js";
import { minus } from "./format.js";
import { table } from "./tables.js";

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

function powerOfTen(value) {
  const power = Math.round(Math.log10(value));
  if (power >= 0 && power <= 4) return (10 ** power).toLocaleString("en");
  return `10${[...String(power)].map((letter) => SUPERSCRIPT[letter]).join("")}`;
}

/**
 * Return an empty chart: `{ node, x, y, add }`, with axes of `{ from, to, label, log, format, ticks }`.
 * Sizes are in CSS pixels; the picture shrinks with its column.
 */
export function plot({ name, width = 340, height = 260, x, y, left = 50, bottom = 42, top = 10, right = 12 }) {
  const picture = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  const across = scale(x.from, x.to, left, width - right, x.log);
  const upward = scale(y.from, y.to, height - bottom, top, y.log);
  const values = (axis) => axis.ticks || (axis.log ? logTicks(axis.from, axis.to) : ticks(axis.from, axis.to));
  const text = (axis) => axis.format || (axis.log ? powerOfTen : (value) => minus(String(value)));
  for (const value of values(x)) {
    picture.append(line(across(value), top, across(value), height - bottom, "grid"),
      svg("text", { x: across(value), y: height - bottom + 15, "text-anchor": "middle" }, text(x)(value)));
  }
  picture.append(...gridRows(values(y), upward, { left, right: width - right, text: text(y) }));
  const middle = top + (height - bottom - top) / 2;
  picture.append(line(left, height - bottom, width - right, height - bottom, "axis-line"),
    svg("text", { x: left + (width - right - left) / 2, y: height - 6, "text-anchor": "middle", class: "label" }, x.label),
    svg("text", { x: 11, y: middle, "text-anchor": "middle", class: "label", transform: `rotate(-90 11 ${middle})` }, y.label));
  return { node: picture, x: across, y: upward, add: (...marks) => picture.append(...marks.flat(2).filter(Boolean)) };
}

/** Return a curve through [x, y] pixels. */
export function curve(points, name) {
  return points.length < 2 ? null : svg("path", { d: pathThrough(points), class: `curve ${name}` });
}

/** Return a mark with a text that shows when pointed at. FP32 is a hollow circle, quantized a filled square. */
export function mark(x, y, name, text) {
  const title = svg("title", {}, text);
  if (name.includes("fp32")) return svg("circle", { cx: x, cy: y, r: 3.6, class: `mark ${name}` }, title);
  return svg("rect", { x: x - 3.2, y: y - 3.2, width: 6.4, height: 6.4, class: `mark ${name}` }, title);
}

/** Return a figure: title, chart, a line on what it says, and its numbers as a table. */
export function figure(title, note, charts, numbers) {
  return el("figure", {}, el("figcaption", {}, el("b", {}, title), note ? el("span", { class: "quiet" }, ` ${note}`) : null),
    charts, numbers ? lazyDetails("Numbers", () => table({ ...numbers, quiet: true })) : null);
}

/** Return what curves and areas mean: [class, text]; "only" is a curve without marks. */
export function plotLegend(entries) {
  return legend(entries.map(([name, text]) => {
    if (name.includes("area")) return [svg("rect", { x: 2, y: 2, width: 22, height: 10, class: name }), text];
    return [[svg("path", { d: "M1 7L25 7", class: `curve ${name}` }), name.includes("only") ? null : mark(13, 7, name, text)], text];
  }), "plot");
}
