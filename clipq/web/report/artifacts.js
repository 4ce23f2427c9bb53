// Exported artifacts: what ran them, what was found in them, and where they lose.
import { details, el, factList, notice, section } from "../shared/elements.js";
import { count, megabytes, percent, times } from "../shared/format.js";
import { table } from "../shared/tables.js";
import { inUnit, VALUES } from "./columns.js";
import { caseLink } from "./links.js";
import { caseOf, evidence, run } from "./record.js";

const OPEN_STEPS = 8;

export function artifactSection() {
  const keys = Object.keys(evidence.artifacts || {});
  if (!keys.length) return null;
  const ladders = new Map(run.ladders.map((ladder) => [ladder.key, ladder]));
  return section("artifacts", "Exported artifacts", keys.map((key) => el("div", { class: "block" },
    el("h3", {}, el("code", {}, key)), factList([...artifactFacts(key), sizeFact(key)].filter(Boolean)),
    ladders.has(key) ? ladderBlock(ladders.get(key)) : null)));
}

function sizeFact(key) {
  const { bytes, float_bytes: ofFloat } = evidence.artifacts[key];
  if (typeof bytes !== "number") return null;
  return ["size", megabytes(bytes) + (ofFloat ? ` (${percent(bytes / ofFloat)} of FP32)` : "")];
}

/** Return what identifies an artifact and what its files hold, as entries of a list of facts. */
export function artifactFacts(key) {
  return Object.entries(run.artifact_texts[key] || {});
}

/** Return what was found in artifacts, each with what mends it, and what they cannot have. */
export function artifactNotices() {
  const all = Object.entries(evidence.artifacts || {}).flatMap(([key, entry]) => (entry.findings || []).map((one) => [key, one]));
  const isNote = ([, one]) => one.wrong === false;
  const shown = ([key, one]) => notice(one.wrong === false ? "" : "warn", el("b", {}, one.wrong === false ? "Note, " : "Finding, ", el("code", {}, key), ": "),
    one.problem, one.fix ? el("span", { class: "quiet" }, ` fix: ${one.fix}`) : null);
  const found = all.filter((pair) => !isNote(pair)).map(shown), notes = all.filter(isNote).map(shown);
  return [...found.slice(0, 6),
    found.length > 6 ? el("div", { class: "notice warn" }, details(count(found.length - 6, "more finding"), found.slice(6))) : null,
    notes.length > 2 ? el("div", { class: "notice" }, details(count(notes.length, "note on artifacts", "notes on artifacts"), notes)) : notes,
    notApplicable(run.not_applicable)].flat().filter(Boolean);
}

/** Cases that artifacts cannot have: no failures, and not planned, but nobody shall miss them. */
function notApplicable({ cases: amount, sentences }) {
  if (sentences.length <= 1) return sentences.length ? notice("", sentences[0]) : null;
  return el("div", { class: "notice" }, details(`${count(amount, "case")} that artifacts cannot have`,
    el("ul", {}, sentences.map((text) => el("li", {}, text)))));
}

/** Return a table of what each metric loses on each rung, the largest rest in margins first. */
function ladderBlock(ladder) {
  const missing = ladder.missing.map((text) => el("p", { class: "quiet" }, text));
  const steps = ladder.steps.filter((step) => caseOf.has(step.case));
  if (!steps.length) return el("div", {}, missing);
  const gap = ladder.export && ladder.simulated ? "Simulation gap" : `Rest: ${ladder.rest_is}`;
  const columns = [{ title: "Metric" }, { title: "Loss", number: true },
    ladder.export ? { title: "Export", number: true } : null, ladder.simulated ? { title: "Simulated", number: true } : null,
    { title: gap, number: true }, { title: "× margin", number: true }].filter(Boolean);
  const rowOf = (step) => {
    const item = caseOf.get(step.case);
    return [caseLink(item, item.key), rung(item), ladder.export ? rung(caseOf.get(step.export)) : null,
      ladder.simulated ? rung(caseOf.get(step.simulated)) : null, el("span", { class: step.beyond_intervals ? null : "quiet" }, `${step.beyond_intervals ? "" : "~ "}${step.rest > 0 ? "+" : ""}${inUnit(item, step.rest)}`),
      (item.margin && times(Math.abs(step.rest / item.margin))) || "–"].filter((cell) => cell !== null);
  };
  const made = (some) => table({ caption: `Where ${ladder.key} loses`, columns, rows: some.map(rowOf), quiet: true });
  const rungs = [ladder.export && `export is ${ladder.export}`, ladder.simulated && `the simulation is ${ladder.simulated}`].filter(Boolean).join(", ");
  return el("div", {},
    el("p", { class: "quiet" }, `Where it loses, the largest rest first: ${rungs}. Each loss has its own interval; the rest is a difference of point values, of which no interval is known; ~ is no more than the intervals of its parts together, so that it may be nothing.`),
    missing, made(steps.slice(0, OPEN_STEPS)),
    steps.length > OPEN_STEPS ? details(`${count(steps.length - OPEN_STEPS, "more metric")}`, made(steps.slice(OPEN_STEPS))) : null);
}

function rung(item) {
  const ends = item.low === null || item.high === null ? "" : ` [${inUnit(item, item.low)}, ${inUnit(item, item.high)}]`;
  return [VALUES.loss.cell(item), el("span", { class: "quiet" }, ends)];
}
