// Which cases are listed, in which order: pure functions of the state, and the controls that change it.

const FILTERS = ["model", "quantizer", "probe", "metric"];
const NO_FILTER = { model: "", quantizer: "", probe: "", metric: "", verdict: "", find: "" };
const COLUMNS = {
  verdict: (item) => -RANK.indexOf(item.verdict), case: (item) => item.id, baseline: (item) => item.baseline,
  observed: (item) => item.observed, loss: (item) => item.loss, excess: (item) => item.excess,
  margin: (item) => item.margin, unit: (item) => item.unit,
};

/** Return the cases that the state asks for, in its order. */
function listed() {
  const wanted = new Set(state.verdict.split(",").filter(Boolean));
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
  const found = cases.filter((item) =>
    FILTERS.every((name) => !state[name] || item[name] === state[name]) &&
    (!wanted.size || wanted.has(item.verdict)) &&
    words.every((word) => item.search.includes(word)));
  return found.sort(order());
}

/** "loss" sorts up, "-loss" down; what has no value comes last either way. */
function order() {
  const down = state.sort.startsWith("-");
  const name = state.sort.replace("-", "");
  if (!Object.hasOwn(COLUMNS, name)) return worstFirst;
  const key = COLUMNS[name];
  return (a, b) => {
    const x = key(a), y = key(b);
    if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index;
    const compared = typeof x === "string" ? x.localeCompare(y) : x - y;
    return (down ? -compared : compared) || a.index - b.index;
  };
}

/** Return the controls above the list. */
function filterBar() {
  const search = el("input", {
    type: "search", id: "find", placeholder: "Search cases, verdicts, reasons", autocomplete: "off",
    spellcheck: "false", "aria-keyshortcuts": "/", oninput: () => go({ find: search.value, case: "" }),
  });
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
    const wanted = state.verdict.split(",");
    for (const chip of chips) chip.setAttribute("aria-pressed", String(wanted.includes(chip.dataset.verdict)));
    reset.hidden = Object.keys(NO_FILTER).every((name) => !state[name]) && !state.sort;
  };
  onState(show);
  show();
  return el("form", { class: "filters", role: "search", "aria-label": "Filter cases", onsubmit: (event) => event.preventDefault() },
    el("div", { class: "row" },
      el("label", { class: "choice wide" }, el("span", {}, "search"), search), lists),
    el("div", { class: "row", role: "group", "aria-label": "Verdicts" }, chips, reset));
}

function toggleVerdict(verdict) {
  const wanted = new Set(state.verdict.split(",").filter(Boolean));
  if (!wanted.delete(verdict)) wanted.add(verdict);
  go({ verdict: [...wanted].join(","), case: "" });
}

/** Show the list with these filters and no other. */
function showCases(change) {
  go({ ...NO_FILTER, case: "", ...change });
  jump("cases");
}
