// Small parts of pages: labels and crumbs.
import { el, notice } from "../shared/elements.js";
import { number, signed, times } from "../shared/format.js";
import { badge } from "../shared/verdicts.js";
import { pageAddress } from "./links.js";

export function missingPage(text) {
  document.title = "Not found · clipq trends";
  return el("div", {}, el("h1", {}, "Not found"), notice("bad", text), el("p", {}, el("a", { href: pageAddress("") }, "To the overview")));
}

/** Where a page is, and beside it the ones before and after. */
export function crumbs(trail, ...beside) {
  return el("nav", { class: "crumbs", "aria-label": "Where this is" }, trail,
    beside.length ? el("span", { class: "beside" }, beside) : null);
}

export function outcomeLabel(run) {
  return run.passed ? badge("pass", "✓", "passed") : badge("fail", "✕", "failed");
}

export function tag(text, title = null) {
  return el("span", { class: "tag", title }, text);
}

/** "▲ worse by 1.3×": direction as symbol and word, size in margins. */
export function stepSize(step) {
  const word = step.worse ? "worse" : "better";
  const size = step.margins === null ? number(Math.abs(step.after - step.before)) : times(step.size);
  return el("span", { class: `move ${word}` },
    el("span", { "aria-hidden": "true" }, step.worse ? "▲" : "▼"), ` ${word} `, el("b", {}, size));
}

export function stepNotes(step) {
  return [
    step.confirmed ? null : tag("unconfirmed", "fewer than three runs are at the new level so far"),
    step.reference === null ? null : tag("FP32 moved", `FP32's value changed by ${signed(step.reference)} at the same place`),
  ];
}
