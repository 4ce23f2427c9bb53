import { copyButton, motion } from "../shared/controls.js";
import { allOf, el, factList } from "../shared/elements.js";
import { megabytes, number, percent, times } from "../shared/format.js";
import { scrollable, tableHead, tableRow } from "../shared/tables.js";
import { countText, tally, verdictLabel, worstFirst } from "../shared/verdicts.js";
import { artifactFacts } from "./artifacts.js";
import { candidateText } from "./candidates.js";
import { VALUES } from "./columns.js";
import { caseLink } from "./links.js";
import { distinct, evidence, pairs } from "./record.js";
import { go, showCases, showFigures, state, stateAddress } from "./state.js";

const METRIC_COLUMNS = [
  { title: "Metric", cell: (item) => caseLink(item, item.metric) },
  { title: "Verdict", cell: (item) => verdictLabel(item.standing) },
  VALUES.baseline, VALUES.observed, VALUES.loss, { ...VALUES.interval, title: "" },
  { title: "× margin", number: true, cell: (item) => times(item.excess) || "–" },
  VALUES.margin, VALUES.unit,
];

/** Show the chosen pair below the heat map: what was quantized, and every metric by probe. */
export function showPair(panel, grid, { scroll }) {
  const pair = pairs.get(state.pair);
  for (const button of grid.querySelectorAll("[data-pair]")) {
    button.setAttribute("aria-expanded", String(button.dataset.pair === state.pair));
  }
  panel.replaceChildren();
  if (!pair) return;
  const heading = el("h3", { tabindex: "-1" }, `${pair.model} / ${pair.quantizer}`);
  panel.append(el("div", { class: "panel" },
    el("div", { class: "row spread" }, heading, el("div", { class: "row" },
      el("button", { type: "button", class: "small", onclick: () => showFigures(pair.key) }, "Figures"),
      el("button", { type: "button", class: "small", onclick: () => showCases({ model: pair.model, quantizer: pair.quantizer }) }, "Filter cases"),
      copyButton("Copy link", () => new URL(stateAddress({ pair: pair.key }), location.href).href),
      el("button", { type: "button", class: "small", onclick: () => closePair() }, "Close"))),
    el("p", { class: "wrap" }, candidateText(pair.key)), pairFacts(pair), metricTable(pair)));
  if (scroll) {
    heading.focus({ preventScroll: true });
    panel.scrollIntoView({ block: "nearest", behavior: motion() });
  }
}

export function closePair() {
  const key = state.pair;
  go({ pair: "" });
  const button = allOf("[data-pair]").find((node) => node.dataset.pair === key);
  if (button) button.focus();
}

function pairFacts(pair) {
  const found = (evidence.artifacts || {})[pair.key] || (evidence.quantizers || {})[pair.key] || {};
  const known = (name) => typeof found[name] === "number";
  const ofFloat = found.float_bytes ? ` (${percent(found.bytes / found.float_bytes)} of FP32)` : "";
  return factList([
    known("weight_bits") ? ["bits per quantized weight", number(found.weight_bits)] : null,
    known("bytes") ? ["size", megabytes(found.bytes) + ofFloat] : null,
    known("share") ? ["of weight multiply-adds quantized", percent(found.share)] : null,
    ...artifactFacts(pair.key).filter(([title]) => title !== "latency"),
    known("milliseconds") ? ["latency", `${number(found.milliseconds)} ms${found.ratio_to_fp32 ? ` (${percent(found.ratio_to_fp32)} of FP32)` : ""}`] : null,
    ["cases", countText(pair.counts)],
  ].filter(Boolean));
}

/** Return the metrics of a pair, one group of rows per probe, worst first inside each. */
function metricTable(pair) {
  const bodies = distinct(pair.cases, "probe").map((probe) => {
    const mine = pair.cases.filter((item) => item.probe === probe).sort(worstFirst);
    return el("tbody", {},
      el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: String(METRIC_COLUMNS.length) }, probe,
        el("span", { class: "quiet" }, ` ${countText(tally(mine))}`))),
      mine.map((item) => tableRow(METRIC_COLUMNS, METRIC_COLUMNS.map((column) => column.cell(item)))));
  });
  return scrollable("Metrics of the pair", el("table", { class: "plain metrics" },
    el("caption", { class: "unseen" }, `Metrics of ${pair.model} with ${pair.quantizer}`),
    el("thead", {}, tableHead(METRIC_COLUMNS)), bodies), "tall");
}
