// One case: what it says now, its chart, its steps, every run.
import { announce, choice } from "../shared/controls.js";
import { el, factList, legend, notice, svg } from "../shared/elements.js";
import { better, day, number, signed, times } from "../shared/format.js";
import { listing } from "../shared/listing.js";
import { inMargins, VERDICTS, verdictLabel } from "../shared/verdicts.js";
import { drawChart, verdictMarker } from "./chart.js";
import { caseAddress, commitLink, keepInAddress, pageAddress, pairAddress, runLink } from "./links.js";
import { historyOf, site, Z95 } from "./model.js";
import { crumbs, missingPage, stepSize, tag } from "./parts.js";
import { STEP_COLUMNS } from "./steps.js";

const RANGES = [["", "All runs"], ["200", "Last 200"], ["50", "Last 50"], ["20", "Last 20"]];

export function casePage(query, parts) {
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
    crumbs([el("a", { href: pageAddress("") }, "Overview"), " / ",
      el("a", { href: pairAddress(item.pair) }, `${item.model} / ${item.quantizer}`)],
    beside(-1, "← previous"), beside(1, "next →")),
    el("h1", { class: "name" }, item.key, " ", el("span", { class: "quiet of" }, `${item.model} / ${item.quantizer}`)), caseFacts(item), room);
  historyOf(item).then(
    (found) => room.replaceChildren(...caseHistory(item, found, query)),
    () => room.replaceChildren(notice("bad", "The data of this pair could not be loaded: is the folder data/ complete?")));
  return page;
}

function caseFacts(item) {
  return factList([
    ["verdict", verdictLabel(item.verdict),
      item.verdict ? el("span", { class: "quiet" }, " since ", runLink(site.runs[item.since])) : null],
    ["loss", el("b", {}, item.loss === null ? "–" : signed(item.loss)), spread(item.error),
      item.excess === null ? null : el("span", { class: "quiet" }, ` ${timesLimit(item, item.loss)}`)],
    [item.floor ? "limit" : "margin", number(item.margin)],
    ["observed", number(item.observed)], ["FP32", number(item.baseline)],
    ["unit", item.unit || "–"], ["direction", better(item.direction) || "–"],
    item.stale ? ["last seen", item.last < 0 ? "never" : runLink(site.runs[item.last])] : null,
  ].filter(Boolean));
}

function spread(error) {
  return error > 0 ? ` ± ${number(Z95 * error)}` : "";
}

function timesLimit(item, loss) {
  return `${times(inMargins(item, loss))} ${item.floor ? "limit" : "margin"}`;
}

function caseHistory(item, found, query) {
  const readout = el("div", { class: "readout" });
  const place = el("div", { class: "place" });
  const told = (at, { quietly }) => {
    readout.replaceChildren(...reading(item, found, at));
    if (!quietly) announce(readout.innerText);
  };
  let last = query.get("last") || "", drawn = 0;
  const draw = () => {
    const width = Math.max(340, Math.floor(place.clientWidth));
    if (width === drawn) return;
    drawn = width;
    const length = Number(last) || site.runs.length;
    const from = Math.max(0, site.runs.length - length);
    place.replaceChildren(drawChart(item, found, { from, to: site.runs.length - 1, width, told }));
  };
  new ResizeObserver(draw).observe(place);
  readout.replaceChildren(...reading(item, found, item.last));
  const range = choice("Show", RANGES.filter(([runs]) => Number(runs) < site.runs.length), last, (runs) => {
    last = runs;
    keepInAddress({ last });
    drawn = 0;
    draw();
  });
  return [
    el("div", { class: "toolbar" }, range, chartLegend(item, found)), place, readout,
    el("p", { class: "hint screen-only" }, "Point at a run, or focus the chart and use ", keyName("←"), " ", keyName("→"), ", ", keyName("Page Up"), " and ", keyName("Page Down"), " for steps, ", keyName("Enter"), " to open the run."),
    el("h2", {}, "Steps"), caseSteps(item), el("h2", {}, "Runs"), caseRuns(item, found),
  ];
}

function keyName(name) {
  return el("kbd", {}, name);
}

function reading(item, found, at) {
  if (at < 0) return [el("span", { class: "quiet" }, "never measured")];
  const run = site.runs[at], loss = found.loss[at];
  const excess = item.margin ? ` (${timesLimit(item, loss)})` : "";
  return [
    el("span", {}, runLink(run), " ", el("span", { class: "quiet" }, day(run.started))),
    el("span", {}, commitLink(run), " ", el("span", { class: "quiet subject" }, run.subject)),
    verdictLabel(found.verdicts[at]),
    el("span", {}, "loss ", el("b", {}, number(loss)), Number.isFinite(loss) ? spread(found.error[at]) + excess : ""),
    el("span", {}, "observed ", el("b", {}, number(found.observed[at]))),
    el("span", {}, "FP32 ", el("b", {}, number(found.baseline[at]))),
    found.odd.has(at) ? tag("odd run") : null,
  ].filter(Boolean);
}

/** What lines, bands and shapes mean; only what the chart shows. */
function chartLegend(item, found) {
  const shown = [...VERDICTS.keys()].filter((verdict) => found.verdicts.includes(verdict));
  const path = (name) => svg("path", { class: name, d: "M1 7H25" });
  return legend([
    [path("trend"), "loss, observed value"],
    found.error.some((error) => error > 0) ? [svg("rect", { class: "band", x: 1, y: 2, width: 24, height: 10 }), "± 1.96 standard errors"] : null,
    item.steps.length ? [path("level"), "level"] : null,
    [path("fp32"), "FP32"],
    ...shown.map((verdict) => [verdictMarker(verdict, 13, 7), verdict]),
    found.odd.size ? [svg("circle", { class: "odd", cx: 13, cy: 7, r: 6 }), "odd run"] : null,
  ].filter(Boolean), "chart");
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
    { title: "Commit", cell: (at) => commitLink(site.runs[at]) },
    { title: "Verdict", cell: (at) => verdictLabel(found.verdicts[at]) },
    { title: "Loss", number: true, cell: (at) => number(found.loss[at]) },
    { title: "Standard error", number: true, cell: (at) => number(found.error[at]) },
    { title: "Observed", number: true, cell: (at) => number(found.observed[at]) },
    { title: "FP32", number: true, cell: (at) => number(found.baseline[at]) },
    { title: "", cell: (at) => {
      const step = item.steps.find((one) => one.run.at === at);
      return step ? stepSize(step) : found.odd.has(at) ? tag("odd run") : "";
    } },
  ] });
}
