// A table that sorts by its headings and shows so many rows at a time.
import { el } from "./elements.js";
import { markSorted, moreText, nextSort, ordered, scrollable, tableHead, tableRow } from "./tables.js";

const ROWS_AT_ONCE = 100;

/** Return a listing of items; each column has `cell(item)`. `onSort(sort)` makes it sort, and is told. */
export function listing({ caption, columns, items, sort = "", onSort = null, rows = ROWS_AT_ONCE }) {
  const body = el("tbody");
  const more = el("p", { class: "more" });
  let by = sort, sorted = [], shown = 0;
  const show = () => {
    body.append(...sorted.slice(shown, shown + rows).map((item) => tableRow(columns, columns.map((column) => column.cell(item)))));
    shown = body.rows.length;
    const left = sorted.length - shown;
    more.replaceChildren(...(left > 0 ? [el("button", { type: "button", onclick: show }, moreText(left, rows))] : []));
  };
  const head = tableHead(columns, onSort && ((column) => {
    by = nextSort(column, by);
    begin();
    onSort(by);
  }));
  const begin = () => {
    markSorted(head, by);
    sorted = ordered(items, columns, by);
    shown = 0;
    body.replaceChildren();
    show();
  };
  begin();
  return el("div", {},
    scrollable(caption, el("table", { class: "plain" }, el("caption", { class: "unseen" }, caption), el("thead", {}, head), body)),
    items.length ? null : el("p", { class: "empty" }, "Nothing matches."), more);
}
