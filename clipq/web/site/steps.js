// All changes of level, newest first.
import { choice, searchField } from "../shared/controls.js";
import { el } from "../shared/elements.js";
import { count, day, number } from "../shared/format.js";
import { listing } from "../shared/listing.js";
import { matches } from "../shared/tables.js";
import { casePageLink, commitRange, keepInAddress, pageAddress, runLink } from "./links.js";
import { site } from "./model.js";
import { stepNotes, stepSize } from "./parts.js";

export const STEP_COLUMNS = [
  { title: "Since", key: "run", first: -1, by: (step) => step.run.at,
    cell: (step) => [runLink(step.run), " ", el("span", { class: "quiet" }, day(step.run.started))] },
  { title: "Case", key: "case", by: (step) => step.item.id, cell: (step) => casePageLink(step.item) },
  { title: "Change", key: "size", first: -1, by: (step) => step.size, cell: (step) => [stepSize(step), stepNotes(step)] },
  { title: "Loss before → after", number: true, cell: (step) => `${number(step.before)} → ${number(step.after)}` },
  { title: "Std. errors", number: true, key: "errors", first: -1, by: (step) => step.errors,
    cell: (step) => (step.errors === null ? "–" : number(Number(step.errors.toPrecision(2)))) },
  { title: "Commits", cell: commitRange },
];
const STEP_KINDS = [["", "worse and better"], ["worse", "worse"], ["better", "better"], ["unconfirmed", "unconfirmed"]];
const STEP_SIZES = [["", "any size"], ["0.5", "0.5 margins and more"], ["1", "1 margin and more"], ["3", "3 margins and more"]];

export function stepsPage(query) {
  document.title = "Steps · clipq trends";
  const box = el("div");
  const state = { find: "", kind: "", size: "", run: "", sort: "-run", ...Object.fromEntries(query) };
  const change = (values) => { Object.assign(state, values); keepInAddress(values); };
  const filter = (values) => { change(values); draw(); };
  const amount = el("p", { class: "quiet amount", role: "status" });
  const draw = () => {
    const least = Number(state.size) || 0;
    const shown = site.steps.filter((step) => matches(step.search, state.find)
      && (!state.kind || state.kind === (state.kind === "unconfirmed" ? !step.confirmed && "unconfirmed" : step.worse ? "worse" : "better"))
      && step.size >= least && (!state.run || String(step.run.number) === state.run));
    amount.textContent = `${count(shown.length, "step")} of ${count(new Set(shown.map((step) => step.item)).size, "case")}`;
    box.replaceChildren(listing({ caption: "Steps", columns: STEP_COLUMNS, items: shown, sort: state.sort, onSort: (sort) => change({ sort }) }));
  };
  draw();
  return el("div", {}, el("h1", {}, "Steps"),
    el("p", { class: "lead" }, "Where a case's level changed by more than noise and a tenth of its margin. Whatever changed it came after the first commit and not after the second."),
    el("div", { class: "toolbar" }, searchField("Find case, commit, branch", state.find, (find) => filter({ find })),
      choice("Direction", STEP_KINDS, state.kind, (kind) => filter({ kind })),
      choice("Size", STEP_SIZES, state.size, (size) => filter({ size })),
      state.run ? el("a", { href: pageAddress("steps", [], { ...state, run: "" }) }, `run ${state.run} only ✕`) : null, amount), box);
}
