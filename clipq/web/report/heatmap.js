import { el, section } from "../shared/elements.js";
import { times } from "../shared/format.js";
import { pairGrid } from "../shared/grid.js";
import { badge, countText, shares, tally, undecidedKey, VERDICTS } from "../shared/verdicts.js";
import { showPair } from "./pair.js";
import { cases, distinct, evidence, pairs } from "./record.js";
import { go, onState, state } from "./state.js";

/** Quantizers down, models across; each cell opens the metric table of its pair. */
export function heatmap() {
  if (!cases.length) return null;
  const models = distinct(cases, "model");
  const grid = pairGrid({
    models, quantizers: distinct(cases, "quantizer"), caption: "Each cell opens the metrics of its pair",
    cell: (model, quantizer) => pairButton(pairs.get(`${model}/${quantizer}`)),
  });
  const panel = el("div", { id: "pair" });
  onState((before) => {
    if (before.pair !== state.pair) showPair(panel, grid, { scroll: true });
  });
  const made = Object.keys(evidence.artifacts || {}).length ? "Quantizers and artifacts" : "Quantizers";
  const box = section("heatmap", models.length === 1 ? `${made} of ${models[0]}` : `Models × ${made.toLowerCase()}`,
    el("p", { class: "quiet" }, "The worst verdict of each pair, how many cases have it, and the worst loss in units of its margin. Choose a cell for its metrics."),
    undecidedKey(tally(cases)), grid, panel);
  showPair(panel, grid, { scroll: false });
  return box;
}

function pairButton(pair) {
  if (!pair) return null;
  const worst = pair.worst ? `${times(pair.worst.excess)} ${pair.worst.key}` : "no loss";
  const all = countText(pair.counts);
  return el("button", {
    type: "button", class: `cell v-${pair.standing}`, "data-pair": pair.key, "aria-expanded": "false",
    "aria-controls": "pair",
    "aria-label": `${pair.model}, ${pair.quantizer}: ${pair.standing}; ${all}; worst: ${worst}`, title: all,
    onclick: () => go({ pair: state.pair === pair.key ? "" : pair.key, figures: pair.key }),
  },
  badge(pair.standing, VERDICTS.get(pair.standing), `${pair.counts.get(pair.standing)} ${pair.standing}`),
  el("span", { class: "worst" }, worst), shares(pair.counts));
}
