// Charts that a reader points at, with a mouse or with the keys: what is nearest is told below.
import { el, svg } from "../shared/elements.js";

const NEAR = 40; // pixels of the picture

/**
 * Make a chart answer: `{ node, told }`, the picture and the line below it.
 *
 * @param {any} chart of `plot`
 * @param {any[]} items `{ x, y, say() }` in pixels, in the order that keys walk through them; `lines`
 *   draws what is shown only of the one that is pointed at
 * @param {string} name of the chart
 * @param {(item: any) => void} open what Enter, or a click, does
 */
export function pointing(chart, items, name, open) {
  const picture = chart.node, ring = svg("g", { class: "ring" });
  chart.add(ring);
  const told = el("p", { class: "told", role: "status" }, el("span", { class: "quiet" }, items.length
    ? "Point at a mark, or walk through them by ← and →; Enter or a click opens its numbers." : "Nothing has both."));
  let at = -1;
  const pick = (next) => {
    at = next;
    const item = items[at];
    ring.replaceChildren(...(item ? [...(item.lines ? item.lines() : []), svg("circle", { cx: item.x, cy: item.y, r: 8.5 })] : []));
    if (item) told.replaceChildren(el("b", {}, item.title), ` ${item.say()}`);
  };
  const nearest = (event) => {
    const box = picture.getBoundingClientRect(), [, , width] = picture.getAttribute("viewBox").split(" ").map(Number);
    const ratio = width / box.width, x = (event.clientX - box.left) * ratio, y = (event.clientY - box.top) * ratio;
    let found = -1, least = NEAR ** 2;
    items.forEach((item, index) => {
      for (const [px, py] of item.points || [[item.x, item.y]]) {
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) [found, least] = [index, distance];
      }
    });
    return found;
  };
  picture.setAttribute("tabindex", "0");
  picture.setAttribute("role", "application");
  picture.setAttribute("aria-roledescription", "chart");
  picture.setAttribute("aria-label", `${name}. ${items.length} marks. Arrow keys move from mark to mark, Enter opens its numbers.`);
  picture.addEventListener("pointermove", (event) => { const found = nearest(event); if (found >= 0 && found !== at) pick(found); });
  picture.addEventListener("click", (event) => { const found = nearest(event); if (found >= 0) { pick(found); open(items[found]); } });
  picture.addEventListener("keydown", (event) => {
    const last = items.length - 1;
    const next = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
    if (next !== undefined && items.length) pick(Math.max(0, Math.min(last, next)));
    else if (event.key === "Enter" && items[at]) open(items[at]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return { node: picture, told };
}
