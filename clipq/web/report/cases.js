// The list of cases. Rows are made fifty at a time, as the reader asks for them: five thousand rows
// with a picture each would take seconds. A link to a case starts the list near that case.
import { allOf, el, section } from "../shared/elements.js";
import { count } from "../shared/format.js";
import { markSorted, moreText, nextSort, tableHead, tableRow } from "../shared/tables.js";
import { caseName, RANK, verdictLabel } from "../shared/verdicts.js";
import { VALUES } from "./columns.js";
import { caseDetail } from "./detail.js";
import { filterBar, listed } from "./filters.js";
import { caseOf, cases } from "./record.js";
import { go, NO_FILTER, onState, state } from "./state.js";

const CHUNK = 50;
const LIST_COLUMNS = [
  { key: "verdict", title: "Verdict", by: (item) => -RANK.indexOf(item.standing), cell: (item) => verdictLabel(item.standing) },
  { key: "case", title: "Case", names: true, by: (item) => item.id, cell: opener },
  VALUES.baseline, VALUES.observed, VALUES.loss, VALUES.interval, VALUES.margin, VALUES.unit,
];
const shown = { list: [], from: 0, to: 0 };

export function caseList() {
  if (!cases.length) return null;
  const body = el("tbody", { id: "rows" });
  const grid = el("table", { class: "cases" },
    el("caption", { class: "unseen" }, "Cases: one row each; a row opens for details"),
    el("thead", {}, tableHead(LIST_COLUMNS, (column) => go({ sort: nextSort(column, state.sort), case: "" }))), body);
  const earlier = el("button", { type: "button", id: "earlier", onclick: () => extend(-1) });
  const later = el("button", { type: "button", id: "later", onclick: () => extend(1) });
  const box = section("cases", "Cases", filterBar(),
    el("p", { id: "listing", class: "quiet", role: "status" }), earlier,
    el("div", { class: "scroll wide" }, grid), later);
  onState(followState);
  return box;
}

function followState(before) {
  const filtered = [...Object.keys(NO_FILTER), "sort"].some((key) => before[key] !== state[key]);
  if (filtered) relist();
  if (before.case !== state.case) {
    closeRow(before.case);
    const item = caseOf.get(state.case);
    if (item) revealCase(item);
  }
}

/** Make the list anew from its first row. */
export function relist() {
  Object.assign(shown, { list: listed(LIST_COLUMNS), from: 0, to: 0 });
  document.getElementById("rows").replaceChildren();
  markSorted(document.querySelector("#cases thead"), state.sort);
  extend(1);
  const item = caseOf.get(state.case);
  if (item && rowOf(item)) openRow(item);
}

/** Make another fifty rows, after (1) or before (-1) those that are there. */
function extend(direction) {
  const body = document.getElementById("rows");
  if (direction > 0) {
    const next = shown.list.slice(shown.to, shown.to + CHUNK);
    body.append(...next.map(caseRow));
    shown.to += next.length;
  } else {
    const start = Math.max(0, shown.from - CHUNK);
    const anchor = body.firstElementChild, top = anchor ? anchor.getBoundingClientRect().top : 0;
    body.prepend(...shown.list.slice(start, shown.from).map(caseRow));
    shown.from = start;
    if (anchor) scrollBy({ top: anchor.getBoundingClientRect().top - top, behavior: "instant" });
  }
  tellListing();
}

function tellListing() {
  const { list, from, to } = shown;
  const of = list.length === cases.length ? count(list.length, "case")
    : `${list.length.toLocaleString("en")} of ${count(cases.length, "case")}`;
  const rows = to - from < list.length ? `; rows ${from + 1} to ${to} are on the page` : "";
  const order = state.sort ? `sorted by ${state.sort.replace("-", "")}` : "what blocks, what is undecided and what is worst first";
  document.getElementById("listing").textContent = list.length ? `${of}, ${order}${rows}` : "No case matches.";
  const earlier = document.getElementById("earlier"), later = document.getElementById("later");
  earlier.hidden = from === 0;
  earlier.textContent = moreText(from, CHUNK, "earlier");
  later.hidden = to >= list.length;
  later.textContent = moreText(list.length - to, CHUNK);
}

function caseRow(item) {
  return tableRow(LIST_COLUMNS, LIST_COLUMNS.map((column) => column.cell(item)), { "data-row": item.at });
}

function opener(item) {
  return el("button", {
    type: "button", class: "opener", "aria-expanded": "false", "data-case": item.at,
    onclick: () => go({ case: state.case === item.id ? "" : item.id }),
  }, caseName(item));
}

function rowOf(item) {
  return document.querySelector(`[data-row="${item.at}"]`);
}

/** Open a case, wherever it is: filters that hide it are dropped, the list starts near it. */
export function revealCase(item) {
  if (!shown.list.includes(item)) {
    go({ ...NO_FILTER });
    if (!shown.list.includes(item)) relist();
  }
  if (!rowOf(item)) {
    const start = Math.max(0, shown.list.indexOf(item) - 10);
    Object.assign(shown, { from: start, to: start });
    document.getElementById("rows").replaceChildren();
    extend(1);
  }
  openRow(item);
  const row = rowOf(item);
  row.querySelector("button").focus({ preventScroll: true });
  const { top, bottom } = row.getBoundingClientRect();
  if (top < 120 || bottom > innerHeight - 200) row.scrollIntoView({ block: "center", behavior: "instant" });
}

function openRow(item) {
  const row = rowOf(item);
  if (row.classList.contains("open")) return;
  row.classList.add("open");
  row.querySelector("button").setAttribute("aria-expanded", "true");
  row.after(el("tr", { class: "detail-row", id: "detail" }, el("td", { colspan: String(LIST_COLUMNS.length) }, caseDetail(item))));
}

function closeRow(id) {
  const item = caseOf.get(id), row = item && rowOf(item);
  if (!row) return;
  row.classList.remove("open");
  row.querySelector("button").setAttribute("aria-expanded", "false");
  if (row.nextElementSibling && row.nextElementSibling.id === "detail") row.nextElementSibling.remove();
}

/** Move the focus by so many rows; the first call goes to the first row that is in sight. */
export function moveFocus(step) {
  const buttons = allOf("[data-case]");
  let at = buttons.indexOf(document.activeElement);
  if (at < 0) {
    const sight = buttons.findIndex((button) => button.getBoundingClientRect().top > 120);
    at = Math.max(0, sight) - step;
  }
  if (at + step >= buttons.length && shown.to < shown.list.length) { extend(1); return moveFocus(step); }
  if (at + step < 0 && shown.from > 0) { extend(-1); return moveFocus(step); }
  const next = buttons[Math.max(0, Math.min(buttons.length - 1, at + step))];
  if (!next) return undefined;
  next.focus();
  next.scrollIntoView({ block: "nearest", behavior: "instant" });
  return undefined;
}
