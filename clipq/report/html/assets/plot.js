// Axes and marks that all charts share. A chart has a name for readers who do not see it, and its
// numbers as a table below.

/** Return a scale: value to pixel. */
function scale(from, to, start, end, log = false) {
  const turn = log ? Math.log10 : (value) => value;
  const low = turn(from), span = turn(to) - low || 1;
  return (value) => start + ((turn(value) - low) / span) * (end - start);
}

/** Return round values between two ends, about `wanted` of them. */
function ticks(from, to, wanted = 5) {
  const rough = (to - from || 1) / wanted, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * unit).find((size) => size >= rough);
  const found = [];
  for (let index = Math.ceil(from / step - 1e-9); index * step <= to + step * 1e-9; index += 1) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

/** Return powers of ten between two ends (every second or third where there are many). */
function logTicks(from, to) {
  const low = Math.ceil(Math.log10(from) - 1e-9), high = Math.floor(Math.log10(to) + 1e-9);
  const step = Math.max(1, Math.ceil((high - low) / 5));
  const found = [];
  for (let power = low; power <= high; power += step) found.push(10 ** power);
  return found;
}

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

function powerOfTen(value) {
  const power = Math.round(Math.log10(value));
  if (power >= 0 && power <= 4) return (10 ** power).toLocaleString("en");
  return `10${[...String(power)].map((letter) => SUPERSCRIPT[letter]).join("")}`;
}

/**
 * Return an empty chart: `{ node, x, y, add }`, with axes of `{ from, to, label, log, format }`.
 * Sizes are in CSS pixels; the picture shrinks with its column.
 */
function plot({ name, width = 340, height = 260, x, y, left = 50, bottom = 42, top = 10, right = 12 }) {
  const picture = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  const across = scale(x.from, x.to, left, width - right, x.log);
  const upward = scale(y.from, y.to, height - bottom, top, y.log);
  const text = (axis, value) => (axis.format ? axis.format(value) : axis.log ? powerOfTen(value) : minus(String(value)));
  for (const value of x.ticks || (x.log ? logTicks(x.from, x.to) : ticks(x.from, x.to))) {
    picture.append(line(across(value), top, across(value), height - bottom, "grid"),
      svg("text", { x: across(value), y: height - bottom + 15, "text-anchor": "middle" }, text(x, value)));
  }
  for (const value of y.ticks || (y.log ? logTicks(y.from, y.to) : ticks(y.from, y.to))) {
    picture.append(line(left, upward(value), width - right, upward(value), "grid"),
      svg("text", { x: left - 6, y: upward(value) + 3.5, "text-anchor": "end" }, text(y, value)));
  }
  const middle = top + (height - bottom - top) / 2;
  picture.append(line(left, height - bottom, width - right, height - bottom, "axis-line"),
    svg("text", { x: left + (width - right - left) / 2, y: height - 6, "text-anchor": "middle", class: "label" }, x.label),
    svg("text", { x: 11, y: middle, "text-anchor": "middle", class: "label", transform: `rotate(-90 11 ${middle})` }, y.label));
  return { node: picture, x: across, y: upward, add: (...marks) => picture.append(...marks.flat(2).filter(Boolean)) };
}

/** Return a polyline through [x, y] pixels. */
function curve(points, name) {
  if (points.length < 2) return null;
  return svg("path", { d: `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`, class: `curve ${name}` });
}

/** Return a mark with a text that shows when pointed at. FP32 is a hollow circle, quantized a filled square. */
function mark(x, y, name, text) {
  const title = svg("title", {}, text);
  if (name.includes("fp32")) return svg("circle", { cx: x, cy: y, r: 3.6, class: `mark ${name}` }, title);
  return svg("rect", { x: x - 3.2, y: y - 3.2, width: 6.4, height: 6.4, class: `mark ${name}` }, title);
}

/** Return a figure: title, chart, a line on what it says, and its numbers as a table. */
function figure(title, note, charts, numbers) {
  return el("figure", {}, el("figcaption", {}, el("b", {}, title), note ? el("span", { class: "quiet" }, ` ${note}`) : null),
    charts, numbers ? lazyDetails("Numbers", () => table({ ...numbers, quiet: true })) : null);
}

/** Return what the marks mean: [class, text]. */
function legend(entries) {
  return el("p", { class: "legend", "aria-hidden": "true" }, entries.map(([name, text]) => {
    const sample = svg("svg", { viewBox: "0 0 26 12", class: "plot sample" });
    if (name.includes("area")) sample.append(svg("rect", { x: 2, y: 1, width: 22, height: 10, class: name }));
    else sample.append(svg("path", { d: "M1 6L25 6", class: `curve ${name}` }));
    if (!name.includes("area") && !name.includes("only")) sample.append(mark(13, 6, name, text));
    return el("span", {}, sample, text);
  }));
}
