import { commandList } from "../shared/commands.js";
import { details, el, factList, notice, section } from "../shared/elements.js";
import { count, duration, moment, plainText } from "../shared/format.js";
import { table } from "../shared/tables.js";
import { caseName, shares, tally, verdictLabel, worstFirst } from "../shared/verdicts.js";
import { artifactNotices } from "./artifacts.js";
import { candidateList } from "./candidates.js";
import { VALUES } from "./columns.js";
import { caseLink } from "./links.js";
import { cases, run } from "./record.js";
import { showCases } from "./state.js";

/** Fill the banner's facts and return what follows it: counts, what blocks first, notices. */
export function summary() {
  const { commit, timings } = run;
  document.getElementById("facts").replaceWith(factList([
    ["policy", run.policy],
    run.started ? ["started", moment(run.started)] : null,
    timings.seconds === undefined ? null : ["took", duration(timings.seconds)],
    commit.sha ? ["commit", el("code", {}, String(commit.sha).slice(0, 12)),
      commit.subject ? ` ${commit.subject}` : null, commit.dirty ? " (with uncommitted changes)" : null] : null,
  ].filter(Boolean)));
  return [counts(), candidateList(), first(), ...notices(), ...artifactNotices(), waivers()];
}

/** The share of each verdict as one bar, and a button for each that shows its cases. */
function counts() {
  if (!cases.length) return null;
  const found = tally(cases);
  const buttons = [...found].map(([verdict, amount]) => el("button", {
    type: "button", class: "count", onclick: () => showCases({ verdict }),
    title: `Show the cases that are ${verdict}`,
  }, verdictLabel(verdict), el("b", {}, amount.toLocaleString("en"))));
  return el("div", { class: "counts" }, shares(found), el("div", { class: "row" }, buttons));
}

/** What blocks first, with its interval and the commands to run next. */
function first() {
  const blocking = cases.filter((item) => item.blocks).sort(worstFirst);
  const broken = run.kernels.filter((row) => row.outcome === "fail");
  if (!blocking.length && !broken.length) return null;
  const box = section("blocking", "What blocks first");
  if (blocking.length) box.append(el("div", { class: "screen-only" }, blockingTable(blocking.slice(0, 5))));
  if (blocking.length > 5) {
    box.append(el("p", { class: "screen-only" }, el("button", {
      type: "button", onclick: () => showCases({ verdict: run.blocks.join(",") }),
    }, `Show all ${blocking.length.toLocaleString("en")} that block`)));
  }
  if (blocking.length) box.append(el("div", { class: "print-only" }, blockingTable(blocking.slice(0, 60))));
  if (blocking.length > 60) {
    box.append(el("p", { class: "print-only" }, `… and ${count(blocking.length - 60, "more case")}.`));
  }
  for (const row of broken.slice(0, 5)) {
    box.append(notice("bad", el("b", {}, `kernel ${row.kernel}, ${row.check}: `), row.reason));
  }
  const commands = [...new Set(blocking.map((item) => item.command).filter(Boolean))];
  if (commands.length) {
    box.append(el("h3", {}, "Run next"), commandList(commands.slice(0, 3)));
    if (commands.length > 3) box.append(el("p", { class: "quiet" }, `… and ${count(commands.length - 3, "more command")}, each with its case.`));
  }
  return box;
}

function blockingTable(items) {
  const columns = [
    { title: "Case", cell: (item) => caseLink(item, caseName(item)) },
    { title: "Verdict", cell: (item) => verdictLabel(item.standing) },
    VALUES.baseline, VALUES.observed, VALUES.loss, { ...VALUES.interval, title: "" }, VALUES.margin, VALUES.unit,
  ];
  const rows = items.map((item) => columns.map((column) => column.cell(item)));
  return table({ caption: "The worst cases that block", columns, rows, quiet: true, name: "plain blocking" });
}

/** Sentences on the run as a whole. */
function notices() {
  const found = run.problems.map((text) => notice("bad", el("b", {}, "Problem: "), text));
  if (run.unreported.length) {
    const some = run.unreported.slice(0, 200);
    const more = run.unreported.length - some.length;
    found.push(el("div", { class: "notice bad" },
      details(`${count(run.unreported.length, "case")} planned, never reported`,
        el("ul", { class: "long" }, some.map((id) => el("li", {}, el("code", {}, id))),
          more ? el("li", {}, `… and ${count(more, "more")}`) : null))));
  }
  for (const kind of [run.evidence.baselines, run.evidence.models]) {
    for (const [model, said] of Object.entries(kind ?? {})) {
      for (const text of said.remarks ?? []) {
        found.push(notice("warn", el("b", {}, "FP32 itself, ", el("code", {}, model), ": "), text));
      }
    }
  }
  const warnings = [...new Set(run.warnings)];
  for (const text of warnings.slice(0, 10)) found.push(notice("warn", el("b", {}, "Warning: "), text));
  if (warnings.length > 10) {
    found.push(el("div", { class: "notice warn" }, details(count(warnings.length - 10, "more warning"),
      el("ul", { class: "long" }, warnings.slice(10).map((text) => el("li", {}, text))))));
  }
  return found;
}

/** Signed-off waivers, whatever their columns are, whoever signed first; lists stand below each. */
function waivers() {
  if (!run.waivers.length) return null;
  const names = [...new Set(run.waivers.flatMap((waiver) => Object.keys(waiver)))]
    .filter((name) => !run.waivers.some((waiver) => Array.isArray(waiver[name])))
    .sort((a, b) => Number(b === "owner") - Number(a === "owner"));
  const columns = names.map((title) => ({ title, number: run.waivers.every((w) => typeof w[title] === "number") }));
  const rows = run.waivers.map((waiver) => names.map((name) =>
    el("span", { class: name === "expires" ? "day" : null }, plainText(waiver[name]))));
  const box = table({ caption: "Signed-off waivers", columns, rows, quiet: true, name: "plain signed" });
  for (const [index, row] of [...box.querySelectorAll("tbody tr")].entries()) {
    const lists = Object.entries(run.waivers[index]).filter(([, value]) => Array.isArray(value));
    if (lists.length) {
      row.after(el("tr", { class: "listed" },
        el("td", { colspan: String(names.length) }, lists.map(([name, ids]) => caseIds(name, ids)))));
    }
  }
  return section("waivers", "Waivers", box);
}

/** What a waiver names, and, folded away, the cases that it waives: they may be hundreds. */
function caseIds(name, ids) {
  const list = el("ul", { class: "ids" }, ids.map((id) => el("li", {}, el("code", {}, plainText(id)))));
  if (name === "cases" && ids.length <= 3) return list;
  const words = { cases: count(ids.length, "pattern"), waived: count(ids.length, "case waived", "cases waived") };
  return ids.length ? details(words[name] || `${name}: ${ids.length}`, list) : el("p", {}, words[name] || name);
}
