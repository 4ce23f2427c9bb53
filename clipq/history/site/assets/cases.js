// All cases, and the cases of one pair.
const sinceRun = (item) => (item.since < 0 ? "–" : [runLink(site.runs[item.since]), " ",
  el("span", { class: "quiet" }, day(site.runs[item.since].started))]);
const CASE_COLUMNS = [
  { title: "Case", key: "case", by: (item) => item.id, cell: (item) => caseLink(item) },
  { title: "Verdict", key: "verdict", first: -1, by: (item) => RANK.indexOf(item.verdict),
    cell: (item) => [verdictLabel(item.verdict), item.stale ? el("span", { class: "tag", title: `last measured in run ${item.last < 0 ? "none" : site.runs[item.last].number}` }, "not in the latest run") : null] },
  { title: "Since", key: "since", first: -1, by: (item) => item.since, cell: sinceRun },
  { title: "Loss", number: true, key: "loss", first: -1, by: (item) => item.loss, cell: (item) => (item.loss === null ? "–" : signed(item.loss)) },
  { title: "Against the margin", key: "size", first: -1, by: (item) => item.excess, cell: marginBand },
  { title: "Margin", cell: (item) => [number(item.margin), " ", el("span", { class: "quiet" }, item.unit)] },
  { title: "Steps", number: true, key: "steps", first: -1, by: (item) => item.steps.length, cell: (item) => (item.steps.length ? number(item.steps.length) : "–") },
];
const TREND_COLUMN = { title: "Trend of the loss", cell: lossSpark };

/** The interval of the loss in units of the margin: 0 is FP32, 1 the margin. */
function marginBand(item) {
  if (item.excess === null) return "–";
  const [width, height, least, most] = [112, 20, -1.5, 3];
  const x = (value) => fixed(((Math.min(most, Math.max(least, value)) - least) / (most - least)) * width);
  const half = item.error ? (Z95 * item.error) / item.margin : 0;
  const beyond = item.excess > most || item.excess < least;
  return el("span", { class: "against" },
    svg("svg", { class: "bandline", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      svg("rect", { class: "beyond", x: x(1), y: 0, width: width - x(1), height }),
      svg("path", { class: "zero", d: `M${x(0)} 0V${height}` }), svg("path", { class: "limit", d: `M${x(1)} 0V${height}` }),
      svg("path", { class: `whisker v-${item.verdict}`, d: `M${x(item.excess - half)} 10H${x(item.excess + half)}` }),
      beyond ? svg("path", { class: `marker v-${item.verdict}`, d: item.excess > most ? "M0 -5L7 0L0 5Z" : "M0 -5L-7 0L0 5Z", transform: `translate(${item.excess > most ? width - 8 : 8} 10)` })
        : svg("circle", { class: `marker v-${item.verdict}`, cx: x(item.excess), cy: 10, r: 3.6 })),
    el("span", { class: "times" }, times(item.excess)));
}

function casesPage(parts, query, turn) {
  document.title = "Cases · clipq trends";
  return el("div", {}, el("h1", {}, "Cases"), caseBrowser(site.cases, CASE_COLUMNS, query, turn));
}

function pairPage(parts, query, turn) {
  const pair = site.pairs.find((found) => `${found.model}/${found.quantizer}` === parts.join("/"));
  if (!pair) return missingPage(`There is no pair ${parts.join(" / ")} in this site.`);
  document.title = `${pair.model} / ${pair.quantizer} · clipq trends`;
  const [name, verdict, since, ...rest] = CASE_COLUMNS;
  const columns = [{ ...name, title: "Probe and metric", cell: (item) => caseLink(item, { short: true }) }, TREND_COLUMN, verdict, since, ...rest];
  const counts = tally(pair.cases);
  return el("div", {},
    el("nav", { class: "crumbs", "aria-label": "Where this is" }, el("a", { href: addressOf("") }, "Overview")),
    el("h1", { class: "name" }, pair.model, " ", el("span", { class: "quiet" }, "/"), " ", el("code", {}, pair.quantizer)),
    el("div", { class: "pairline" }, passedSpark(pair), shares(counts)),
    caseBrowser(pair.cases, columns, query, turn));
}

function caseBrowser(cases, columns, query, turn) {
  const box = el("div");
  const state = { find: "", verdict: "", sort: "", ...Object.fromEntries(query) };
  const change = (values) => { Object.assign(state, values); turn(values, { redraw: false }); draw(); };
  const amount = el("p", { class: "quiet amount", role: "status" });
  const kept = new Map([["blocking", (item) => item.blocks], ["stepped", (item) => item.steps.length > 0]]);
  const draw = () => {
    const wanted = kept.get(state.verdict) || ((item) => !state.verdict || item.verdict === state.verdict);
    const shown = cases.filter((item) => wanted(item) && matches(item.search, state.find)).sort(worstFirst);
    amount.textContent = `${shown.length.toLocaleString("en")} of ${count(cases.length, "case")}`;
    box.replaceChildren(listing({ caption: "Cases", columns, items: shown, sort: state.sort, onSort: (sort) => change({ sort }) }));
  };
  draw();
  const blocking = cases.filter((item) => item.blocks).length;
  const choices = [["", "any verdict"], ["blocking", `blocking (${blocking.toLocaleString("en")})`], ["stepped", "with steps"],
    ...tally(cases).map(([verdict, found]) => [verdict, `${VERDICTS.get(verdict)} ${verdict} (${found.toLocaleString("en")})`])];
  return el("div", {},
    el("div", { class: "toolbar" }, searchField("Find model, quantizer, probe, metric", state.find, (find) => change({ find })),
      choice("Verdict", choices, state.verdict, (verdict) => change({ verdict })), amount), box);
}
