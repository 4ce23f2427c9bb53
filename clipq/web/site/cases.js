// All cases, and the cases of one pair.
import { choice, searchField } from "../shared/controls.js";
import { el } from "../shared/elements.js";
import { count, day, number, signed, times } from "../shared/format.js";
import { forest } from "../shared/interval.js";
import { listing } from "../shared/listing.js";
import { matches } from "../shared/tables.js";
import { RANK, shares, tally, verdictLabel, VERDICTS, worstFirst } from "../shared/verdicts.js";
import { casePageLink, keepInAddress, pageAddress, runLink } from "./links.js";
import { site } from "./model.js";
import { crumbs, missingPage, tag } from "./parts.js";
import { lossSpark, passedSpark } from "./sparkline.js";

const sinceRun = (item) => (item.since < 0 ? "–" : [runLink(site.runs[item.since]), " ",
  el("span", { class: "quiet" }, day(site.runs[item.since].started))]);
export const CASE_COLUMNS = [
  { title: "Case", key: "case", by: (item) => item.id, cell: (item) => casePageLink(item) },
  { title: "Verdict", key: "verdict", first: -1, by: (item) => RANK.indexOf(item.verdict),
    cell: (item) => [verdictLabel(item.verdict), item.stale ? tag("not in the latest run", item.last < 0 ? "never measured" : `last measured in run ${site.runs[item.last].number}`) : null] },
  { title: "Since", key: "since", first: -1, by: (item) => item.since, cell: sinceRun },
  { title: "Loss", number: true, key: "loss", first: -1, by: (item) => item.loss, cell: (item) => (item.loss === null ? "–" : signed(item.loss)) },
  { title: "Against the margin", key: "size", first: -1, by: (item) => item.excess, cell: againstMargin },
  { title: "Margin", cell: (item) => [number(item.margin), " ", el("span", { class: "quiet" }, item.unit)] },
  { title: "Steps", number: true, key: "steps", first: -1, by: (item) => item.steps.length, cell: (item) => (item.steps.length ? number(item.steps.length) : "–") },
];
export const TREND_COLUMN = { title: "Trend of the loss", cell: lossSpark };

/** The interval of the loss in units of the margin, and its middle in numbers. */
function againstMargin(item) {
  return item.excess === null ? "–" : el("span", { class: "against" }, forest(item), el("span", { class: "times" }, times(item.excess)));
}

export function casesPage(query) {
  document.title = "Cases · clipq trends";
  return el("div", {}, el("h1", {}, "Cases"), caseBrowser(site.cases, CASE_COLUMNS, query));
}

export function pairPage(query, parts) {
  const pair = site.pairs.find((found) => `${found.model}/${found.quantizer}` === parts.join("/"));
  if (!pair) return missingPage(`There is no pair ${parts.join(" / ")} in this site.`);
  document.title = `${pair.model} / ${pair.quantizer} · clipq trends`;
  const [name, verdict, since, ...rest] = CASE_COLUMNS;
  const columns = [{ ...name, title: "Probe and metric", cell: (item) => casePageLink(item, { short: true }) }, TREND_COLUMN, verdict, since, ...rest];
  return el("div", {},
    crumbs(el("a", { href: pageAddress("") }, "Overview")),
    el("h1", { class: "name" }, pair.model, " ", el("span", { class: "quiet" }, "/"), " ", el("code", {}, pair.quantizer)),
    el("div", { class: "pairline" }, passedSpark(pair), shares(tally(pair.cases))),
    caseBrowser(pair.cases, columns, query));
}

function caseBrowser(cases, columns, query) {
  const box = el("div");
  const state = { find: "", verdict: "", sort: "", ...Object.fromEntries(query) };
  const change = (values) => { Object.assign(state, values); keepInAddress(values); };
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
    ...[...tally(cases)].map(([verdict, found]) => [verdict, `${VERDICTS.get(verdict)} ${verdict} (${found.toLocaleString("en")})`])];
  return el("div", {},
    el("div", { class: "toolbar" }, searchField("Find model, quantizer, probe, metric", state.find, (find) => { change({ find }); draw(); }),
      choice("Verdict", choices, state.verdict, (verdict) => { change({ verdict }); draw(); }), amount), box);
}
