// Tables. A column has a `title`; `number` aligns it right, `names` makes its cells the rows' headings
// (the first column's, where none says so). Where it sorts it has a `key` and `by(item)`; `first` is
// the order that a first click gives, 1 up or -1 down.
import { el } from "./elements.js";

/** Return a box that scrolls sideways where the window is narrow, by keyboard too. */
export function scrollable(label, content, name = "") {
  return el("div", { class: `scroll ${name}`.trim(), tabindex: "0", role: "region", "aria-label": label }, content);
}

/** Return a table of rows, each a list of cells. */
export function table({ caption, columns, rows, quiet = false, name = "plain" }) {
  return scrollable(caption, el("table", { class: name },
    el("caption", { class: quiet ? "unseen" : null }, caption),
    el("thead", {}, tableHead(columns)), el("tbody", {}, rows.map((cells) => tableRow(columns, cells)))));
}

/** Return the row of headings; `onSort(key)` makes those that sort buttons. */
export function tableHead(columns, onSort = null) {
  return el("tr", {}, columns.map((column) => {
    const sorts = onSort && column.key;
    const title = sorts ? el("button", { type: "button", class: "sort", onclick: () => onSort(column) }, column.title) : column.title;
    return el("th", { scope: "col", class: column.number ? "number" : null, "data-column": sorts ? column.key : null },
      title, column.axis ? column.axis() : null);
  }));
}

export function tableRow(columns, cells, attributes = {}) {
  const names = Math.max(0, columns.findIndex((column) => column.names));
  return el("tr", attributes, columns.map((column, index) => (index === names
    ? el("th", { scope: "row", class: column.number ? "number" : null }, cells[index])
    : el("td", { class: column.number ? "number" : null }, cells[index]))));
}

/** Say in the row of headings what the rows are sorted by: "key" up, "-key" down, "" not at all. */
export function markSorted(head, sort) {
  for (const heading of head.querySelectorAll("[data-column]")) {
    const key = heading.dataset.column;
    if (sort === key || sort === `-${key}`) heading.setAttribute("aria-sort", sort === key ? "ascending" : "descending");
    else heading.removeAttribute("aria-sort");
  }
}

/** Return what a click on a heading sorts by: one way, the other way, not at all. */
export function nextSort(column, sort) {
  const up = column.key, down = `-${column.key}`;
  const [one, two] = column.first === -1 ? [down, up] : [up, down];
  return sort === one ? two : sort === two ? "" : one;
}

/** Return items in the order of `sort`; what has no value comes last either way, equals keep their places. */
export function ordered(items, columns, sort) {
  const column = columns.find((found) => found.key && found.key === sort.replace(/^-/, ""));
  if (!column) return items;
  const turn = sort.startsWith("-") ? -1 : 1;
  const none = (value) => value === null || value === undefined || Number.isNaN(value);
  return items.map((item) => [column.by(item), item]).sort(([a], [b]) => {
    if (none(a) || none(b)) return Number(none(a)) - Number(none(b));
    return a === b ? 0 : (a < b ? -1 : 1) * turn;
  }).map(([, item]) => item);
}

/** Whether a text in lower case has every word that is looked for. */
export function matches(text, find) {
  return find.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

/** Return the text of a button that shows more rows. */
export function moreText(left, chunk, name = "more") {
  const next = Math.min(chunk, left);
  return `Show ${next} ${name}${left > next ? ` of ${left.toLocaleString("en")}` : ""}`;
}
