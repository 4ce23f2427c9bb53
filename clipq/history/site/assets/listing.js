// A table that sorts by its headings and shows so many rows at a time.
const ROWS_AT_ONCE = 100;

/**
 * Return a listing. Columns have `title`, `cell(item)`, and where they sort `key` and `by(item)`;
 * `first` is the order that a first click gives (1 up, -1 down). `sort` is "key" or "-key".
 */
function listing({ caption, columns, items, sort = "", onSort, rowClass, rows = ROWS_AT_ONCE }) {
  const body = el("tbody");
  const more = el("p", { class: "more" });
  const sorted = ordered(items, columns, sort);
  let shown = 0;
  const show = (amount) => {
    const next = sorted.slice(shown, shown + amount);
    body.append(...next.map((item) => row(item, columns, rowClass)));
    shown += next.length;
    const left = sorted.length - shown;
    more.replaceChildren(...(left > 0 ? [
      el("button", { type: "button", onclick: () => show(rows) }, `Show ${Math.min(rows, left)} more`),
      el("span", { class: "quiet" }, ` ${shown.toLocaleString("en")} of ${sorted.length.toLocaleString("en")} shown`),
    ] : []));
  };
  show(rows);
  const head = el("tr", {}, columns.map((column) => heading(column, sort, onSort)));
  const empty = sorted.length ? null : el("p", { class: "empty" }, "Nothing matches.");
  return el("div", {},
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      el("table", { class: "plain" }, el("caption", { class: "unseen" }, caption), el("thead", {}, head), body)),
    empty, more);
}

function row(item, columns, rowClass) {
  return el("tr", { class: rowClass ? rowClass(item) : null }, columns.map((column, at) => {
    const attributes = { class: column.number ? "number" : null };
    if (at === 0) attributes.scope = "row";
    return el(at === 0 ? "th" : "td", attributes, column.cell(item));
  }));
}

function heading(column, sort, onSort) {
  const attributes = { scope: "col", class: column.number ? "number" : null };
  if (!column.key || !onSort) return el("th", attributes, column.title);
  const up = sort === column.key, down = sort === `-${column.key}`;
  if (up || down) attributes["aria-sort"] = up ? "ascending" : "descending";
  const next = up ? `-${column.key}` : down ? column.key : (column.first === -1 ? "-" : "") + column.key;
  return el("th", attributes, el("button", { type: "button", class: "sort", "data-sort": column.key,
    onclick: () => onSort(next) }, column.title));
}

function ordered(items, columns, sort) {
  const column = columns.find((found) => found.key && sort.replace(/^-/, "") === found.key);
  if (!column) return items;
  const turn = sort.startsWith("-") ? -1 : 1;
  const keyed = items.map((item, at) => [column.by(item), at, item]);
  const none = (value) => value === null || value === undefined || Number.isNaN(value);
  keyed.sort(([a, i], [b, j]) => {
    if (none(a) || none(b)) return none(a) === none(b) ? i - j : none(a) ? 1 : -1; // no value: last
    if (a === b) return i - j;
    return (a < b ? -1 : 1) * turn;
  });
  return keyed.map(([, , item]) => item);
}
