// The recorded runs: when, of which commit, with which outcome, in which environment.
import { searchField } from "../shared/controls.js";
import { el, factList } from "../shared/elements.js";
import { day, moment, number } from "../shared/format.js";
import { listing } from "../shared/listing.js";
import { matches } from "../shared/tables.js";
import { shares, verdictLabel } from "../shared/verdicts.js";
import { commitLink, keepInAddress, pageAddress, runLink } from "./links.js";
import { blockingCount, site } from "./model.js";
import { crumbs, missingPage, outcomeLabel, tag } from "./parts.js";
import { STEP_COLUMNS } from "./steps.js";

export function runsPage(query, parts) {
  if (parts.length) return runPage(parts.join("/"));
  document.title = "Runs · clipq trends";
  const box = el("div");
  const state = { find: "", ...Object.fromEntries(query) };
  const stepsOf = new Map();
  for (const step of site.steps) stepsOf.set(step.run.at, (stepsOf.get(step.run.at) || 0) + 1);
  const draw = () => {
    const shown = site.runs.filter((run) => matches(`${run.number} ${run.sha} ${run.subject} ${run.branch} ${run.started}`.toLowerCase(), state.find)).reverse();
    box.replaceChildren(listing({ caption: "Runs, newest first", items: shown, columns: [
      { title: "Run", cell: runLink }, { title: "Date", cell: (run) => day(run.started) },
      { title: "Outcome", cell: outcomeLabel }, { title: "Commit", cell: commitLink },
      { title: "Subject", cell: (run) => el("span", { class: "subject" }, run.subject) },
      { title: "Branch", cell: (run) => run.branch || "–" },
      { title: "Blocking", number: true, cell: (run) => number(blockingCount(run)) },
      { title: "Cases", number: true, cell: (run) => number(run.cases) },
      { title: "Steps", number: true, cell: (run) => (stepsOf.has(run.at) ? el("a", { href: pageAddress("steps", [], { run: run.number }) }, number(stepsOf.get(run.at))) : "–") },
    ] }));
  };
  draw();
  return el("div", {}, el("h1", {}, "Runs"),
    el("div", { class: "toolbar" }, searchField("Find commit, subject, branch, date", state.find, (find) => { state.find = find; keepInAddress({ find }); draw(); })), box);
}

function runPage(name) {
  const run = site.runs.find((found) => String(found.number) === name);
  if (!run) return missingPage(`There is no run ${name} in this site.`);
  document.title = `Run ${run.number} · clipq trends`;
  const before = site.runs[run.at - 1], after = site.runs[run.at + 1];
  const known = new Map(before ? before.environment : []);
  const steps = site.steps.filter((step) => step.run === run);
  const counts = new Map(site.verdicts.map((verdict, at) => [verdict, run.counts[at]]).filter(([, amount]) => amount));
  return el("div", {},
    crumbs(el("a", { href: pageAddress("runs") }, "Runs"),
      before ? el("a", { href: pageAddress("runs", [before.number]), rel: "prev" }, "← previous") : null,
      after ? el("a", { href: pageAddress("runs", [after.number]), rel: "next" }, "next →") : null),
    el("h1", {}, `Run ${run.number} `, outcomeLabel(run)),
    factList([["started", moment(run.started)], ["commit", commitLink(run)], ["subject", run.subject || "–"], ["branch", run.branch || "–"],
      ["policy", run.policy], ["cases", number(run.cases)], ["record", el("code", {}, run.id.slice(0, 16))]]),
    shares(counts),
    el("ul", { class: "counts" }, [...counts].map(([verdict, amount]) => el("li", {}, verdictLabel(verdict), " ", el("b", {}, number(amount))))),
    el("h2", {}, "Steps that start here"),
    steps.length ? listing({ caption: `Steps that start at run ${run.number}`, columns: STEP_COLUMNS, items: steps, rows: 50 }) : el("p", { class: "quiet" }, "None."),
    el("h2", {}, "Environment"),
    run.environment.length ? listing({ caption: "Environment", rows: 200, items: run.environment, columns: [
      { title: "What", cell: ([what]) => el("code", {}, what) }, { title: "Value", cell: ([, value]) => value },
      { title: "", cell: ([what, value]) => (before && known.get(what) !== value ? tag(known.has(what) ? `was ${known.get(what)}` : "new") : "") },
    ] }) : el("p", { class: "quiet" }, "Not recorded."));
}
