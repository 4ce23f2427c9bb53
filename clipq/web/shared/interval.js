// One row of a forest plot: the loss and its interval in units of the margin. 0 is FP32's own value,
// 1 the margin. What lies outside is drawn as an arrow at the edge.
import { line } from "./axes.js";
import { el, svg } from "./elements.js";
import { times } from "./format.js";
import { inMargins } from "./verdicts.js";

const FOREST = { from: -1.4, to: 2.6, width: 200, height: 22 };

function forestX(value) {
  const clipped = Math.max(FOREST.from, Math.min(FOREST.to, value));
  return 8 + ((clipped - FOREST.from) / (FOREST.to - FOREST.from)) * (FOREST.width - 16);
}

/** Return a case's interval (`low` to `high`, of its loss) against its margin. */
export function forest(item) {
  const { width, height } = FOREST;
  if (item.excess === null) return el("span", { class: "quiet" }, "not compared");
  const middle = height / 2;
  const low = inMargins(item, item.low), high = inMargins(item, item.high);
  const picture = svg("svg", {
    class: `forest v-${item.standing}`, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": forestText(item, low, high),
  });
  picture.append(svg("rect", { class: "beyond", x: forestX(1), y: 0, width: width - forestX(1), height }));
  if (!item.floor) picture.append(line(forestX(0), 2, forestX(0), height - 2, "zero"));
  picture.append(line(forestX(1), 0, forestX(1), height, "limit"));
  if (low !== null && high !== null) {
    picture.append(line(forestX(low), middle, forestX(high), middle, "interval"));
    for (const value of [low, high]) {
      if (value >= FOREST.from && value <= FOREST.to) {
        picture.append(line(forestX(value), middle - 3.5, forestX(value), middle + 3.5, "interval"));
      }
    }
  }
  const outermost = [item.excess, low, high].filter((value) => value !== null);
  if (Math.max(...outermost) > FOREST.to) picture.append(arrow(width - 1, middle, 1));
  if (Math.min(...outermost) < FOREST.from) picture.append(arrow(1, middle, -1));
  if (item.excess >= FOREST.from && item.excess <= FOREST.to) {
    picture.append(svg("circle", { cx: forestX(item.excess), cy: middle, r: 3.6, class: "point" }));
  }
  return picture;
}

function forestText(item, low, high) {
  const limit = item.floor ? "limit" : "margin";
  const interval = low === null ? "no interval" : `interval ${times(low)} to ${times(high)}`;
  return `loss ${times(item.excess)} the ${limit}, ${interval}`;
}

/** Return the axis that stands above a column of rows. */
export function forestAxis() {
  const marks = [[-1, "−1", "−1"], [0, "FP32", "0"], [1, "margin", "1"], [2, "2", "2"]];
  const picture = svg("svg", {
    class: "forest axis", viewBox: `0 0 ${FOREST.width} 16`, role: "img",
    "aria-label": "axis: loss in units of the margin, 0 is FP32, 1 is the margin",
  });
  for (const [value, label, brief] of marks) {
    const place = { x: forestX(value), y: 11, "text-anchor": "middle" };
    picture.append(svg("text", { ...place, class: "in-words" }, label), svg("text", { ...place, class: "in-brief" }, brief));
  }
  return picture;
}

function arrow(x, y, direction) {
  const back = x - direction * 7;
  return svg("path", { d: `M${x} ${y}L${back} ${y - 4.5}V${y + 4.5}Z`, class: "arrow" });
}
