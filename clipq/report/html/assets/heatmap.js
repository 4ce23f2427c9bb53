/** Quantizers down, models across; each cell opens the metric table of its pair. */
function heatmap() {
  if (!cases.length) return null;
  const models = distinct(cases, "model"), quantizers = distinct(cases, "quantizer");
  const head = el("tr", {}, el("td", {}),
    models.map((model) => el("th", { scope: "col" }, model)));
  const rows = quantizers.map((quantizer) => el("tr", {},
    el("th", { scope: "row" }, el("code", {}, quantizer)),
    models.map((model) => el("td", {}, cell(pairs.get(`${model}/${quantizer}`))))));
  const grid = el("table", { class: "heat" },
    el("caption", { class: "unseen" }, "Models and quantizers"),
    el("thead", {}, head), el("tbody", {}, rows));
  grid.style.minWidth = `${12 + 9.5 * models.length}rem`;
  grid.style.maxWidth = `${14 + 16 * models.length}rem`;
  const panel = el("div", { id: "pair" });
  onState((before) => {
    if (before.pair !== state.pair) showPair(panel, { scroll: true });
  });
  const box = section("heatmap", "Models × quantizers",
    el("p", { class: "quiet" }, "The worst verdict of each pair, how many cases have it, and the worst loss in units of its margin. Choose a cell for its metrics."),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Heat map" }, grid), panel);
  showPair(panel, { scroll: false });
  return box;
}

function cell(pair) {
  if (!pair) return el("span", { class: "quiet", title: "not in this run" }, "–");
  const { symbol, word } = VERDICTS[pair.verdict];
  const strip = el("span", { class: "shares", "aria-hidden": "true" });
  for (const [verdict, amount] of pair.counts) {
    const part = el("span", { class: `v-${verdict}` });
    part.style.flexGrow = amount;
    strip.append(part);
  }
  const worst = pair.worst ? `${times(pair.worst.excess)} ${pair.worst.probe}.${pair.worst.metric}` : "no loss";
  const all = [...pair.counts].map(([verdict, amount]) => `${amount} ${verdict}`).join(", ");
  const button = el("button", {
    type: "button", class: `cell v-${pair.verdict}`, "data-pair": pair.key, "aria-expanded": "false",
    "aria-controls": "pair",
    "aria-label": `${pair.model}, ${pair.quantizer}: ${word}; ${all}; worst: ${worst}`, title: all,
    onclick: () => go({ pair: state.pair === pair.key ? "" : pair.key, figures: pair.key }),
  },
  el("span", { class: "verdict" }, el("span", { class: "symbol", "aria-hidden": "true" }, symbol),
    `${pair.counts.get(pair.verdict)} ${word}`),
  el("span", { class: "worst" }, worst), strip);
  return button;
}
