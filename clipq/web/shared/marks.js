// Marks of what has a cost: shapes, the front of what nothing beats, and marks side by side.
import { svg } from "./elements.js";

const SHAPES = ["circle", "square", "triangle", "diamond", "cross"];

/** Return the points that no other beats in both cost and badness, cheapest first. */
export function frontOf(points, bad) {
  const found = [];
  for (const point of [...points].sort((a, b) => a.x - b.x || bad(a) - bad(b))) {
    if (!found.length || bad(point) < bad(found[found.length - 1])) found.push(point);
  }
  return found;
}

/** Return the front as a line of steps, in pixels. */
export function staircase(front, chart) {
  return front.flatMap((point, index) => {
    const here = [chart.x(point.x), chart.y(point.y)];
    return index ? [[here[0], chart.y(front[index - 1].y)], here] : [here];
  });
}

/** Move marks of one cost aside, so that their intervals can be told apart; each has at most `room` pixels. */
export function standApart(marks, room = Infinity) {
  const groups = new Map();
  for (const mark of marks) {
    const place = Math.round(mark.x / 4);
    groups.set(place, [...(groups.get(place) || []), mark]);
  }
  for (const group of groups.values()) {
    const step = Math.min(8, room / group.length);
    group.sort((a, b) => a.y - b.y).forEach((mark, index) => { mark.x += (index - (group.length - 1) / 2) * step; });
  }
}

/**
 * Return the mark of the `index`-th kind of thing, hollow where it is not `on`; `text` shows when pointed at.
 * Five colours and five shapes go together; from the sixth kind on, each colour has another shape.
 */
export function shape(index, x, y, on, text = "") {
  const name = `mark point-${index % SHAPES.length}${on ? "" : " off"}`;
  const r = 5;
  const path = {
    circle: `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
    square: `M${x - 4.4} ${y - 4.4}h8.8v8.8h-8.8Z`,
    triangle: `M${x} ${y - 5.6}L${x + 5.4} ${y + 4.2}H${x - 5.4}Z`,
    diamond: `M${x} ${y - 6}L${x + 5.4} ${y}L${x} ${y + 6}L${x - 5.4} ${y}Z`,
    cross: `M${x - 5} ${y - 1.8}h3.2v-3.2h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2Z`,
  }[SHAPES[(index + Math.floor(index / SHAPES.length)) % SHAPES.length]];
  return svg("path", { d: path, class: name }, text ? svg("title", {}, text) : null);
}
