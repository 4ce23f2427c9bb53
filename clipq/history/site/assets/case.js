// One case: what it says now, its chart, its steps, every run.
const RANGES = [["", "All runs"], ["200", "Last 200"], ["50", "Last 50"], ["20", "Last 20"]];

function casePage(parts, query, turn) {
  const item = site.known.get(parts.join("/"));
  if (!item) return missingPage(`There is no case ${parts.join("/")} in this site.`);
  document.title = `${item.id} · clipq trends`;
  const around = item.pair.cases;
  const beside = (offset, text) => {
    const other = around[item.row + offset];
    return other ? el("a", { href: caseAddress(other), rel: offset < 0 ? "prev" : "next", title: other.id }, text) : null;
  };
  const room = el("div", { class: "room" }, el("p", { class: "quiet" }, "Loading …"));
  const page = el("div", {},
    el("nav", { class: "crumbs", "aria-label": "Where this is" },
      el("a", { href: addressOf("") }, "Overview"), " / ",
      el("a", { href: pairAddress(item.pair) }, `${item.model} / ${item.quantizer}`),
      el("span", { class: "beside" }, beside(-1, "← previous"), beside(1, "next →"))),
    el("h1", { class: "name" }, item.key, " ", el("span", { class: "quiet of" }, `${item.model} / ${item.quantizer}`)), caseFacts(item), room);
  history_of(item).then(
    (found) => room.replaceChildren(...caseHistory(item, found, query, turn)),
    () => room.replaceChildren(notice("The data of this pair could not be loaded: is the folder data/ complete?")));
  return page;
}

function caseFacts(item) {
  const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const loss = item.loss === null ? "–" : signed(item.loss);
  const spread = item.error ? ` ± ${number(round(Z95 * item.error))}` : "";
  return el("dl", { class: "facts" },
    fact("verdict", verdictLabel(item.verdict),
      item.verdict ? el("span", { class: "quiet" }, " since ", runLink(site.runs[item.since])) : null),
    fact("loss", el("b", {}, loss), spread, item.excess === null ? null : el("span", { class: "quiet" }, ` ${times(item.excess)} margin`)),
    fact("margin", number(item.margin)),
    fact("observed", number(item.observed)), fact("FP32", number(item.baseline)),
    fact("unit", item.unit || "–"), fact("better", new Map([["lower", "lower"], ["higher", "higher"], ["zero", "nearer to 0"]]).get(item.direction) || item.direction),
    item.stale ? fact("last seen", item.last < 0 ? "never" : runLink(site.runs[item.last])) : null);
}

function caseHistory(item, found, query, turn) {
  const readout = el("div", { class: "readout" });
  const place = el("div", { class: "place" });
  const told = (at, { quietly }) => {
    readout.replaceChildren(...reading(item, found, at));
    if (!quietly) announce(readout.innerText);
  };
  let picture = null, drawn = 0;
  const draw = () => {
    const width = Math.max(340, Math.floor(place.clientWidth));
    if (width === drawn) return;
    drawn = width;
    const length = Number(query.get("last")) || site.runs.length;
    const from = Math.max(0, site.runs.length - length);
    picture = drawChart(item, found, { from, to: site.runs.length - 1, width, told });
    place.replaceChildren(picture);
  };
  new ResizeObserver(draw).observe(place);
  readout.replaceChildren(...reading(item, found, item.last));
  const range = choice("Show", RANGES.filter(([last]) => Number(last) < site.runs.length), query.get("last") || "", (last) => turn({ last }));
  return [
    el("div", { class: "toolbar" }, range, legend(item, found)), place, readout,
    el("p", { class: "hint screen-only" }, "Point at a run, or focus the chart and use ", key("←"), " ", key("→"), ", ", key("Page Up"), " and ", key("Page Down"), " for steps, ", key("Enter"), " to open the run."),
    el("h2", {}, "Steps"), caseSteps(item), el("h2", {}, "Runs"), caseRuns(item, found),
  ];
}

function key(name) {
  return el("kbd", {}, name);
}

function reading(item, found, at) {
  if (at < 0) return [el("span", { class: "quiet" }, "never measured")];
  const run = site.runs[at], loss = found.loss[at], error = found.error[at];
  const excess = item.margin ? ` (${times(loss / item.margin)} margin)` : "";
  const spread = error > 0 ? ` ± ${number(round(Z95 * error))}` : "";
  return [
    el("span", {}, runLink(run), " ", el("span", { class: "quiet" }, day(run.started))),
    el("span", {}, commit(run), " ", el("span", { class: "quiet subject" }, run.subject)),
    verdictLabel(found.verdicts[at]),
    el("span", {}, "loss ", el("b", {}, finite(loss)), Number.isFinite(loss) ? spread + excess : ""),
    el("span", {}, "observed ", el("b", {}, finite(found.observed[at]))),
    el("span", {}, "FP32 ", el("b", {}, finite(found.baseline[at]))),
    found.odd.has(at) ? el("span", { class: "tag" }, "odd run") : null,
  ].filter(Boolean);
}

function finite(value) {
  return Number.isFinite(value) ? number(round(value)) : "–";
}

/** What lines, bands and shapes mean; only what the chart shows. */
function legend(item, found) {
  const swatch = (kind, text) => el("li", {}, svg("svg", { viewBox: "0 0 26 14", width: 26, height: 14, class: "chart key", "aria-hidden": "true" }, kind), text);
  const shown = [...VERDICTS.keys()].filter((verdict) => found.verdicts.includes(verdict));
  return el("ul", { class: "legend", "aria-label": "Legend" },
    swatch(svg("path", { class: "trend", d: "M1 7H25" }), "loss, observed value"),
    found.error.some((error) => error > 0) ? swatch(svg("rect", { class: "band", x: 1, y: 2, width: 24, height: 10 }), "± 1.96 standard errors") : null,
    item.steps.length ? swatch([svg("g", { class: "levels" }, svg("path", { d: "M1 7H25" }))], "level") : null,
    swatch(svg("path", { class: "fp32", d: "M1 7H25" }), "FP32"),
    shown.map((verdict) => swatch(marker(verdict, 13, 7), verdict)),
    found.odd.size ? swatch(svg("circle", { class: "odd", cx: 13, cy: 7, r: 6 }), "odd run") : null);
}

function caseSteps(item) {
  if (!item.steps.length) return el("p", { class: "quiet" }, "The level never changed by more than noise and a tenth of the margin.");
  return listing({ caption: `Steps of ${item.id}`, columns: STEP_COLUMNS.filter((column) => column.key !== "case"), items: [...item.steps].reverse() });
}

/** The chart as text. */
function caseRuns(item, found) {
  const rows = site.runs.map((run) => run.at).filter((at) => found.verdicts[at]).reverse();
  return listing({ caption: `Runs of ${item.id}, newest first`, rows: 25, items: rows, columns: [
    { title: "Run", cell: (at) => runLink(site.runs[at]) },
    { title: "Date", cell: (at) => day(site.runs[at].started) },
    { title: "Commit", cell: (at) => commit(site.runs[at]) },
    { title: "Verdict", cell: (at) => verdictLabel(found.verdicts[at]) },
    { title: "Loss", number: true, cell: (at) => finite(found.loss[at]) },
    { title: "Standard error", number: true, cell: (at) => finite(found.error[at]) },
    { title: "Observed", number: true, cell: (at) => finite(found.observed[at]) },
    { title: "FP32", number: true, cell: (at) => finite(found.baseline[at]) },
    { title: "", cell: (at) => {
      const step = item.steps.find((one) => one.run.at === at);
      return step ? stepSize(step) : found.odd.has(at) ? el("span", { class: "tag" }, "odd run") : "";
    } },
  ] });
}
