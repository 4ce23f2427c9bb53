// Which configurations the reader looks at: one set of filters for the table and the figures.
import { choice, searchField } from "../shared/controls.js";
import { el } from "../shared/elements.js";
import { count } from "../shared/format.js";
import { matches } from "../shared/tables.js";
import { configurations, KINDS, studyValues } from "./measured.js";
import { look, NO_CHOICE, onView, view } from "./view.js";

const CHOICES = Object.keys(NO_CHOICE).filter((name) => name !== "find");

/** Return the configurations that the filters leave. */
export function chosen(change = {}) {
  /** @type {Record<string, string>} */
  const wanted = { ...view, ...change };
  return configurations.filter((row) => CHOICES.every((name) => !wanted[name] || row[name] === wanted[name])
    && matches(row.search, wanted.find));
}

/** Whether a change of what is looked at changed the filters. */
export function choiceChanged(before) {
  return Object.keys(NO_CHOICE).some((name) => before[name] !== view[name]);
}

export function choiceBar() {
  const search = searchField("find configurations", view.find, (find) => look({ find, cell: "" }));
  const lists = CHOICES.map((name) => [name, choice(name, [["", "all"], ...studyValues(name).map((value) => [
    value, name === "kind" ? KINDS.get(value) : value || "none"])], view[name], (value) => look({ [name]: value, cell: "" }))])
    .filter(([name]) => studyValues(name).length > 1);
  const amount = el("p", { class: "quiet", role: "status", id: "amount" });
  const reset = el("button", { type: "button", onclick: () => look({ ...NO_CHOICE, cell: "" }) }, "Clear filters");
  const show = () => {
    if (document.activeElement !== search) search.value = view.find;
    for (const [name, label] of lists) label.lastChild.value = view[name];
    const found = chosen().length;
    amount.textContent = found === configurations.length ? `${count(found, "configuration")}, in the table and in the figures`
      : `${found.toLocaleString("en")} of ${count(configurations.length, "configuration")}, in the table and in the figures`;
    reset.hidden = Object.keys(NO_CHOICE).every((name) => !view[name]);
  };
  onView(show);
  show();
  return el("form", { class: "filters chosen", role: "search", "aria-label": "Filter configurations", onsubmit: (event) => event.preventDefault() },
    el("div", { class: "row" }, el("label", { class: "choice wide" }, el("span", { "aria-hidden": "true" }, "search"), search),
      lists.map(([, label]) => label), reset), amount);
}
