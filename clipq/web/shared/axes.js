// From values to pixels, and the lines that charts share.
import { svg } from "./elements.js";

/** Return a scale, value to pixel, to a tenth of one; of a linear scale, `value` is the way back. */
export function scale(from, to, start, end, log = false) {
  const turn = log ? Math.log10 : (value) => value;
  let low = turn(from), high = turn(to);
  if (low === high) {
    const half = Math.abs(low) / 2 || 0.5;
    [low, high] = [low - half, high + half];
  }
  const place = (value) => tenth(start + ((turn(value) - low) / (high - low)) * (end - start));
  return Object.assign(place, { from: low, to: high, value: (at) => low + ((at - start) / (end - start)) * (high - low) });
}

/** Return round values between two ends, at most about `wanted` of them. */
export function ticks(from, to, wanted = 5) {
  const rough = (to - from || 1) / wanted, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * unit).find((size) => size >= rough);
  const found = [];
  for (let index = Math.ceil(from / step - 1e-9); index * step <= to + step * 1e-9; index += 1) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

/** Return powers of ten between two ends (every second or third where there are many). */
export function logTicks(from, to) {
  const low = Math.ceil(Math.log10(from) - 1e-9), high = Math.floor(Math.log10(to) + 1e-9);
  const step = Math.max(1, Math.ceil((high - low) / 5));
  const found = [];
  for (let power = low; power <= high; power += step) found.push(10 ** power);
  return found;
}

/** Return the lines and labels of an upward axis. */
export function gridRows(values, y, { left, right, text }) {
  return values.flatMap((value) => [line(left, y(value), right, y(value), "grid"),
    svg("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, text(value))]);
}

export function line(x1, y1, x2, y2, name) {
  return svg("line", { x1, y1, x2, y2, class: name });
}

/** Return a path through [x, y] pixels, broken where a y is no number; equal neighbours need no points. */
export function pathThrough(points) {
  const there = (index) => index >= 0 && index < points.length && Number.isFinite(points[index][1]);
  let path = "";
  points.forEach(([x, y], index) => {
    if (!there(index)) return;
    const before = there(index - 1), after = there(index + 1);
    if (!before) path += `M${x} ${y}`;
    else if (!after || points[index - 1][1] !== y || points[index + 1][1] !== y) path += `L${x} ${y}`;
    // A point between two gaps is a dot: a line without length, drawn by its round ends.
    if (!before && !after) path += "h0";
  });
  return path;
}

export function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function tenth(value) {
  return Math.round(value * 10) / 10;
}
