/** Show the chosen pair below the heat map: what was quantized, and every metric by probe. */
function showPair(panel, { scroll }) {
  const pair = pairs.get(state.pair);
  for (const button of document.querySelectorAll("[data-pair]")) {
    button.setAttribute("aria-expanded", String(button.dataset.pair === state.pair));
  }
  panel.replaceChildren();
  if (!pair) return;
  const heading = el("h3", { tabindex: "-1" }, `${pair.model} / ${pair.quantizer}`);
  panel.append(el("div", { class: "panel" },
    el("div", { class: "row spread" }, heading, el("div", { class: "row" },
      el("button", { type: "button", class: "small", onclick: () => showFigures(pair.key) }, "Figures"),
      el("button", { type: "button", class: "small", onclick: () => showCases({ model: pair.model, quantizer: pair.quantizer }) }, "Filter cases"),
      copyButton("Copy link", () => new URL(addressOf({ pair: pair.key }), location.href).href),
      el("button", { type: "button", class: "small", onclick: () => closePair() }, "Close"))),
    pairFacts(pair), metricTable(pair)));
  if (scroll) {
    heading.focus({ preventScroll: true });
    panel.scrollIntoView({ block: "nearest", behavior: motion() });
  }
}

function closePair() {
  const key = state.pair;
  go({ pair: "" });
  const button = [...document.querySelectorAll("[data-pair]")].find((node) => node.dataset.pair === key);
  if (button) button.focus();
}

function pairFacts(pair) {
  const found = (evidence.quantizers || {})[pair.key] || {};
  const facts = el("dl", { class: "facts" });
  const add = (name, value) => facts.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  if (typeof found.weight_bits === "number") add("bits per quantized weight", number(found.weight_bits));
  if (typeof found.bytes === "number") {
    const share = found.float_bytes ? ` (${percent(found.bytes / found.float_bytes)} of FP32)` : "";
    add("size", megabytes(found.bytes) + share);
  }
  if (typeof found.share === "number") add("of weight multiply-adds quantized", percent(found.share));
  if (typeof found.milliseconds === "number") add("latency", `${number(found.milliseconds)} ms`);
  add("cases", [...pair.counts].map(([verdict, amount]) => `${amount} ${verdict}`).join(", "));
  return facts;
}

/** Return the metrics of a pair, one group of rows per probe, worst first inside each. */
function metricTable(pair) {
  const head = el("tr", {}, el("th", { scope: "col" }, "Metric"), el("th", { scope: "col" }, "Verdict"),
    ["FP32", "Observed", "Loss"].map((name) => el("th", { scope: "col", class: "number" }, name)),
    el("th", { scope: "col" }, forestAxis()),
    ["× margin", "Margin"].map((name) => el("th", { scope: "col", class: "number" }, name)),
    el("th", { scope: "col" }, "Unit"));
  const bodies = distinct(pair.cases, "probe").map((probe) => {
    const mine = pair.cases.filter((item) => item.probe === probe).sort(worstFirst);
    const title = [...tally(mine)].map(([verdict, amount]) => `${amount} ${verdict}`).join(", ");
    return el("tbody", {},
      el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: "9" }, probe,
        el("span", { class: "quiet" }, ` ${title}`))),
      mine.map((item) => el("tr", {},
        el("th", { scope: "row" }, caseLink(item, item.metric)),
        el("td", {}, verdictLabel(item.verdict)),
        el("td", { class: "number" }, inUnit(item, item.baseline)),
        el("td", { class: "number" }, inUnit(item, item.observed)),
        el("td", { class: "number" }, lossText(item)),
        el("td", {}, forest(item)),
        el("td", { class: "number" }, times(item.excess) || "–"),
        el("td", { class: "number" }, inUnit(item, item.margin)),
        el("td", {}, item.unit || "–"))));
  });
  return el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Metrics of the pair" },
    el("table", { class: "plain metrics" },
      el("caption", { class: "unseen" }, `Metrics of ${pair.model} with ${pair.quantizer}`),
      el("thead", {}, head), bodies));
}
