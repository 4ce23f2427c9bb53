// The first page: the latest outcome, what broke last, and every pair at a glance.
import { scale } from "../shared/axes.js";
import { el, factList, svg } from "../shared/elements.js";
import { count, day, moment, number } from "../shared/format.js";
import { pairGrid } from "../shared/grid.js";
import { listing } from "../shared/listing.js";
import { countText, shares, tally, verdictLabel, worstFirst, worstOf } from "../shared/verdicts.js";
import { CASE_COLUMNS, TREND_COLUMN } from "./cases.js";
import { commitLink, pageAddress, pairAddress, runLink } from "./links.js";
import { blockingCount, site } from "./model.js";
import { overRuns, passedSpark } from "./sparkline.js";
import { STEP_COLUMNS } from "./steps.js";

const FIRST_ROWS = 10;

export function overviewPage() {
  document.title = "clipq trends";
  return el("div", {}, banner(), timeline(), regressions(), newestSteps(), everyPair());
}

function banner() {
  const run = site.latest, blocking = site.cases.filter((item) => item.blocks && !item.stale).length;
  const state = run.passed ? "passed" : "failed";
  const total = number(run.cases || site.cases.length);
  return el("section", { class: `banner ${state}`, "aria-labelledby": "outcome" },
    el("span", { class: "seal", "aria-hidden": "true" }, run.passed ? "✓" : "✕"),
    el("div", {}, el("h1", { id: "outcome" }, `Latest run ${state}`),
      el("p", { class: "lead" }, blocking ? `${number(blocking)} of ${total} cases block under policy ${run.policy}.` : `None of ${total} cases blocks under policy ${run.policy}.`)),
    factList([
      ["run", runLink(run), " ", el("span", { class: "quiet" }, moment(run.started))],
      ["commit", commitLink(run), " ", el("span", { class: "quiet subject" }, run.subject)],
      ["history", `${count(site.runs.length, "run")} since ${day(site.runs[0].started)}`],
      ["steps", el("a", { href: pageAddress("steps") }, number(site.steps.length))]]));
}

/** Blocking cases of every run; a strip below tells the gate's outcomes. */
function timeline() {
  const amounts = site.runs.map(blockingCount);
  const [width, height, lane] = [1000, 90, 8];
  const most = Math.max(1, ...amounts);
  const x = scale(-0.5, site.runs.length - 0.5, 0, width), y = scale(0, most * 1.08, height - lane - 4, 4);
  const strip = [];
  for (let start = 0; start < site.runs.length;) {
    let end = start;
    while (end + 1 < site.runs.length && site.runs[end + 1].passed === site.runs[start].passed) end += 1;
    strip.push(svg("rect", { class: `v-${site.runs[start].passed ? "pass" : "fail"}`, x: x(start - 0.5), y: height - lane, width: Math.max(0.5, x(end + 0.5) - x(start - 0.5)), height: lane }));
    start = end + 1;
  }
  const failed = site.runs.filter((run) => !run.passed).length;
  const first = site.runs[0];
  return el("section", { class: "timeline", "aria-labelledby": "timeline-title" },
    el("h2", { id: "timeline-title" }, "Blocking cases per run"),
    el("p", { class: "quiet" }, `${number(amounts[amounts.length - 1])} in the latest run, ${number(most === 1 ? Math.max(...amounts) : most)} at most; ${number(failed)} of ${count(site.runs.length, "run")} failed.`),
    svg("svg", { class: "chart wide", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("path", { class: "area", d: `${overRuns(amounts, x, y)}V${height - lane - 4}H${x(0)}Z` }),
      svg("path", { class: "trend", d: overRuns(amounts, x, y) }), strip),
    el("p", { class: "ends quiet", "aria-hidden": "true" }, el("span", {}, `run ${first.number} · ${day(first.started)}`), el("span", {}, "strip: passed or failed"), el("span", {}, `run ${site.latest.number} · ${day(site.latest.started)}`)));
}

function regressions() {
  const blocking = site.cases.filter((item) => item.blocks).sort((a, b) => b.since - a.since || worstFirst(a, b));
  const [name, verdict, since, loss, size] = CASE_COLUMNS;
  const columns = [name, TREND_COLUMN, verdict, { ...since, title: "Blocking since" }, loss, size].map((column) => ({ ...column, key: "" }));
  return el("section", { "aria-labelledby": "regressions" }, el("h2", { id: "regressions" }, "Newest regressions"),
    blocking.length ? listing({ caption: "Cases that block, the newest first", columns, items: blocking.slice(0, FIRST_ROWS) }) : el("p", { class: "quiet" }, "No case blocks."),
    blocking.length > FIRST_ROWS ? el("p", {}, el("a", { class: "all", href: pageAddress("cases", [], { verdict: "blocking", sort: "-since" }) }, `All ${number(blocking.length)} that block`)) : null);
}

function newestSteps() {
  const worse = site.steps.filter((step) => step.worse);
  const columns = STEP_COLUMNS.map((column) => ({ ...column, key: "" }));
  return el("section", { "aria-labelledby": "newest" }, el("h2", { id: "newest" }, "Newest steps for the worse"),
    worse.length ? listing({ caption: "The newest steps for the worse", columns, items: worse.slice(0, FIRST_ROWS) }) : el("p", { class: "quiet" }, "No level rose by more than noise."),
    site.steps.length ? el("p", {}, el("a", { class: "all", href: pageAddress("steps") }, `All ${count(site.steps.length, "step")}, better ones too`)) : null);
}

/** Quantizers down, models across; each cell leads to the cases of its pair. */
function everyPair() {
  const places = new Map(site.models.map((model) => [model, new Map()]));
  for (const pair of site.pairs) places.get(pair.model).set(pair.quantizer, pair);
  return el("section", { "aria-labelledby": "grid" }, el("h2", { id: "grid" }, "Models × quantizers"),
    el("p", { class: "quiet" }, "Worst verdict, cases that do not block, and their share over all runs."),
    pairGrid({
      models: site.models, quantizers: [...new Set(site.pairs.map((pair) => pair.quantizer))], caption: "Each cell opens the cases of its pair",
      cell: (model, quantizer) => pairTile(places.get(model).get(quantizer)),
    }));
}

function pairTile(pair) {
  if (!pair) return null;
  const counts = tally(pair.cases), worst = worstOf(counts), all = countText(counts);
  const passing = pair.cases.filter((item) => item.verdict && !item.blocks).length;
  return el("a", { class: `cell v-${worst}`, href: pairAddress(pair), title: all,
    "aria-label": `${pair.model}, ${pair.quantizer}: worst ${worst || "not run"}; ${all}` },
  el("span", { class: "head" }, verdictLabel(worst), el("span", { class: "amount" }, `${passing}/${pair.cases.length}`)),
  passedSpark(pair), shares(counts));
}
