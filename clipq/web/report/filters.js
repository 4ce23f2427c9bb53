// Which cases are listed, in which order: pure functions of the state, and the controls that change it.
import { choice, searchField } from "../shared/controls.js";
import { el } from "../shared/elements.js";
import { matches, ordered } from "../shared/tables.js";
import { tally, UNDECIDED, verdictLabel, worstFirst } from "../shared/verdicts.js";
import { cases, distinct } from "./record.js";
import { go, NO_FILTER, onState, state } from "./state.js";

const FILTERS = ["model", "quantizer", "probe", "metric"];

/** Return the cases that the state asks for, in the order of its column, else the worst first. */
export function listed(columns) {
  const wanted = wantedStandings();
  const found = cases.filter((item) =>
    FILTERS.every((name) => !state[name] || item[name] === state[name]) &&
    (!wanted.size || wanted.has(item.standing)) && matches(item.search, state.find));
  const sorted = ordered(found, columns, state.sort);
  return sorted === found ? found.sort(worstFirst) : sorted;
}

/** Return the controls above the list. */
export function filterBar() {
  const search = searchField("Search cases, verdicts, reasons", state.find, (find) => go({ find, case: "" }));
  const lists = FILTERS.map((name) => choice(name,
    [["", `all (${distinct(cases, name).length})`], ...distinct(cases, name).map((value) => [value, value])],
    state[name], (value) => go({ [name]: value, case: "" })));
  const chips = [...tally(cases)].map(([verdict, amount]) => el("button", {
    type: "button", class: "count", "data-verdict": verdict, onclick: () => toggleVerdict(verdict),
  }, verdictLabel(verdict), el("b", {}, amount.toLocaleString("en"))));
  const reset = el("button", { type: "button", id: "reset", onclick: () => go({ ...NO_FILTER, sort: "", case: "" }) }, "Clear filters");
  const show = () => {
    if (document.activeElement !== search) search.value = state.find;
    lists.forEach((label, index) => { label.lastChild.value = state[FILTERS[index]]; });
    const wanted = wantedStandings();
    for (const chip of chips) chip.setAttribute("aria-pressed", String(wanted.has(chip.dataset.verdict)));
    reset.hidden = Object.keys(NO_FILTER).every((name) => !state[name]) && !state.sort;
  };
  onState(show);
  show();
  return el("form", { class: "filters", role: "search", "aria-label": "Filter cases", onsubmit: (event) => event.preventDefault() },
    el("div", { class: "row" },
      el("label", { class: "choice wide" }, el("span", { "aria-hidden": "true" }, "search"), search), lists),
    el("div", { class: "row", role: "group", "aria-label": "Verdicts" }, chips, reset));
}

/** Return the standings that the state asks for; `inconclusive` asks for both that it divides into. */
function wantedStandings() {
  const named = state.verdict.split(",").filter(Boolean);
  return new Set(named.flatMap((verdict) => (verdict === "inconclusive" ? UNDECIDED : [verdict])));
}

function toggleVerdict(verdict) {
  const wanted = wantedStandings();
  if (!wanted.delete(verdict)) wanted.add(verdict);
  go({ verdict: [...wanted].join(","), case: "" });
}
