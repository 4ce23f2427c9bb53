import { el } from "./elements.js";
import { scrollable } from "./tables.js";

/** Return a table of quantizers down and models across, or of one model a list; `cell(model, quantizer)` makes what is in it. */
export function pairGrid({ models, quantizers, caption, cell }) {
  if (models.length === 1) return tiles(models[0], quantizers, caption, cell);
  const grid = el("table", { class: "heat" },
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, el("td", {}), models.map((model) => el("th", { scope: "col" }, model)))),
    el("tbody", {}, quantizers.map((quantizer) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, quantizer)),
      models.map((model) => el("td", {}, cell(model, quantizer) || el("span", { class: "quiet", title: "not in this run" }, "–")))))));
  grid.style.minWidth = `${12 + 11 * models.length}rem`;
  grid.style.maxWidth = `${14 + 16 * models.length}rem`;
  return scrollable("Models and quantizers", grid);
}

/** Return the cells of one model side by side, over the width of the page. */
function tiles(model, quantizers, caption, cell) {
  return el("ul", { class: "tiles", "aria-label": caption }, quantizers.map((quantizer) => el("li", {},
    el("code", {}, quantizer), cell(model, quantizer) || el("span", { class: "quiet", title: "not in this run" }, "–"))));
}
