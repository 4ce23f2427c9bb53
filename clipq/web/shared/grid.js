import { el } from "./elements.js";
import { scrollable } from "./tables.js";

/** Return a table of quantizers down and models across; `cell(model, quantizer)` makes what is in it. */
export function pairGrid({ models, quantizers, caption, cell }) {
  const grid = el("table", { class: "heat" },
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, el("td", {}), models.map((model) => el("th", { scope: "col" }, model)))),
    el("tbody", {}, quantizers.map((quantizer) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, quantizer)),
      models.map((model) => el("td", {}, cell(model, quantizer) || el("span", { class: "quiet", title: "not in this run" }, "–")))))));
  grid.style.minWidth = `${12 + 11 * models.length}rem`;
  grid.style.maxWidth = `${14 + 16 * models.length}rem`;
  return scrollable("Models and quantizers", grid);
}
