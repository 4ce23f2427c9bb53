// The study's table: configurations down; across either metrics, or the models of one metric.
import { choice } from "../shared/controls.js";
import { allOf, el, section } from "../shared/elements.js";
import { number } from "../shared/format.js";
import { markSorted, moreText, nextSort, ordered, tableHead, tableRow } from "../shared/tables.js";
import { chosen, choiceBar, choiceChanged } from "./chosen.js";
import { downloadButton } from "./download.js";
import { cellOf, columnTitle, configurationOf, filledColumns, KINDS, studyColumn, studyModel, studyModels } from "./measured.js";
import { cellText, changeText, intervalText, withDecimals } from "./numbers.js";
import { cellKey, unitDetail } from "./units.js";
import { look, onView, view } from "./view.js";

const AT_ONCE = 25;
const FIRST_COLUMNS = 7;
const shownRows = { columns: [], items: [], to: 0 };

/** Return the metrics that are shown: those that the reader chose, else the first. */
function shownColumns() {
  const named = view.columns.split(" ").filter((name) => studyColumn.has(name));
  return named.length ? named : filledColumns.slice(0, FIRST_COLUMNS).map((column) => column.key);
}

function oneMetric() {
  return studyColumn.has(view.metric) ? view.metric : studyColumn.has("ece") ? "ece" : filledColumns[0].key;
}

export function studyTable() {
  if (!filledColumns.length) return null;
  const body = el("tbody", { id: "numbers" });
  const grid = el("table", { class: "study" }, el("caption", { class: "unseen" }, "Configurations: each number opens what it rests on"), el("thead"), body);
  const more = el("button", { type: "button", id: "more-numbers", onclick: moreRows });
  const controls = el("div", { class: "row filters" });
  const picker = columnPicker();
  const draw = () => {
    controls.replaceChildren(...[
      studyModels.length > 1 ? choice("across", [["", "metrics"], ["models", "models"]], view.layout, (layout) => look({ layout, sort: "", cell: "" })) : null,
      view.layout ? choice("metric", filledColumns.map((column) => [column.key, columnTitle(column.key)]), oneMetric(), (metric) => look({ metric, sort: "", cell: "" })) : null,
      choice("shown", [["", "change against FP32"], ["value", "value"]], view.shown, (shown) => look({ shown, cell: "" })),
      downloadButton("Download as CSV", "study.csv", tableRecords)].filter(Boolean));
    picker.hidden = Boolean(view.layout);
    drawRows(grid);
  };
  const box = section("table", "Table", el("p", { class: "quiet" }, explanation()), choiceBar(), controls, picker,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of configurations" }, grid), more);
  onView((before) => {
    const drawn = choiceChanged(before) || ["sort", "columns", "layout", "metric", "shown"].some((key) => before[key] !== view[key]);
    if (drawn) draw();
    else if (before.cell !== view.cell) { closeNumber(); openNumber(); }
  });
  requestAnimationFrame(draw);
  return box;
}

function explanation() {
  return "The mean over seeds, and below it the 95 % interval of the change, over samples and seeds. ↑ and bold: surely better than "
    + "FP32; ↓: surely worse; each by its own interval, not corrected for the number of comparisons. Each number opens its units.";
}

/** Return the choice of metrics, closed at first: 30 of them would be a table too wide to read. */
function columnPicker() {
  const boxes = filledColumns.map((column) => el("label", { class: "tick" },
    el("input", { type: "checkbox", value: column.key, onchange: () => look({ columns: ticked(), cell: "" }) }), ` ${columnTitle(column.key)}`));
  const ticked = () => boxes.map((label) => label.firstChild).filter((box) => box.checked).map((box) => box.value).join(" ");
  const show = () => { for (const label of boxes) label.firstChild.checked = shownColumns().includes(label.firstChild.value); };
  onView(show);
  show();
  return el("details", { class: "picker" }, el("summary", {}, "Metrics shown"),
    el("div", { class: "row ticks", role: "group", "aria-label": "Metrics shown" }, boxes,
      el("button", { type: "button", class: "small", onclick: () => look({ columns: filledColumns.map((column) => column.key).join(" "), cell: "" }) }, "All"),
      el("button", { type: "button", class: "small", onclick: () => look({ columns: "", cell: "" }) }, "The first ones")));
}

/** Return the columns of facts that a row begins with. */
function factColumns(layout) {
  const fact = (key, title, cell = (item) => item[key]) => ({ key, title, by: (item) => item[key], cell });
  return [
    fact("method", "Method"),
    { ...fact("bits", "Bits"), first: 1 },
    { ...fact("text", "Configuration", (item) => el("code", {}, item.text)), names: true },
    fact("kind", "Kind", (item) => KINDS.get(item.kind)),
    ...(layout || studyModels.length < 2 ? [] : [fact("model", "Model", (item) => el("span", { class: "whole" }, item.model))]),
  ];
}

/** Return the table's columns; each of numbers has `row(item)` and `metric`, so that it can be opened. */
function tableColumns() {
  const numbers = view.layout
    ? studyModels.map(({ name }) => numberColumn(name, name, oneMetric(), (item) => item.models.get(name)))
    : shownColumns().map((name) => numberColumn(name, columnTitle(name), name, (item) => item));
  return [...factColumns(view.layout), ...numbers];
}

function numberColumn(key, title, name, rowOfItem) {
  const sign = studyColumn.get(name).better === "lower" ? 1 : -1;
  return {
    key, title, number: true, metric: name, first: sign, row: rowOfItem,
    by: (item) => {
      const cell = rowOfItem(item) && cellOf(rowOfItem(item), name);
      return cell ? (view.shown || !cell.compared ? cell.value : cell.change) : null;
    },
    cell: (item) => (rowOfItem(item) ? numberButton(rowOfItem(item), name) : "–"),
  };
}

/** Return the rows: configurations, or where models stand across, texts with their models. */
function tableItems() {
  const rows = chosen();
  if (!view.layout) return rows;
  const found = new Map();
  for (const row of rows) {
    if (!found.has(row.text)) found.set(row.text, { ...row, models: new Map() });
    found.get(row.text).models.set(row.model, row);
  }
  return [...found.values()];
}

function drawRows(grid) {
  const columns = tableColumns();
  const head = tableHead(columns, (column) => look({ sort: nextSort(column, view.sort), cell: "" }));
  grid.querySelector("thead").replaceChildren(head, ...referenceRows(columns));
  markSorted(grid.querySelector("thead"), view.sort);
  Object.assign(shownRows, { columns, items: ordered(tableItems(), columns, view.sort), to: 0 });
  document.getElementById("numbers").replaceChildren();
  moreRows();
  openNumber();
}

/** Return a row of FP32's own values, where all that is shown is of one model. */
function referenceRows(columns) {
  const models = [...new Set(chosen().map((row) => row.model))];
  if (!view.layout && models.length !== 1) return [];
  const facts = factColumns(view.layout).length;
  return [el("tr", { class: "reference" }, columns.map((column, at) => {
    if (at < facts) return at === 2 ? el("th", { scope: "row" }, "FP32") : el("td", {});
    const model = view.layout ? column.key : models[0];
    const value = studyModel.get(model).fp32[column.metric];
    return el("td", { class: "number" }, number(value));
  }))];
}

function moreRows() {
  const { columns, items, to } = shownRows;
  document.getElementById("numbers").append(...items.slice(to, to + AT_ONCE).map((item) =>
    tableRow(columns, columns.map((column) => column.cell(item)))));
  shownRows.to = Math.min(items.length, to + AT_ONCE);
  const button = document.getElementById("more-numbers");
  button.hidden = shownRows.to >= items.length;
  button.textContent = moreText(items.length - shownRows.to, AT_ONCE);
}

function numberButton(row, name) {
  const cell = cellOf(row, name);
  if (!cell) return el("span", { class: "quiet" }, "–");
  const key = cellKey(row, name), half = cell.low === null ? 0 : (cell.high - cell.low) / 2;
  const shown = view.shown || !cell.compared ? withDecimals(cell.value, half) : changeText(cell.change, half);
  const sure = cell.better === 1 ? ["↑", "surely better"] : cell.better === -1 ? ["↓", "surely worse"] : null;
  return el("button", {
    type: "button", class: `digits ${["worse", "", "better"][cell.better + 1]}`.trim(), "aria-expanded": "false", "data-cell": key,
    onclick: () => look({ cell: view.cell === key ? "" : key }),
  }, el("span", { class: "digit" }, sure ? [el("span", { "aria-hidden": "true" }, `${sure[0]} `), el("span", { class: "unseen" }, `${sure[1]}: `)] : null, shown),
  el("span", { class: "quiet" }, intervalText(cell.low, cell.high, cell.compared ? changeText : withDecimals) || "one seed"));
}

function openedCell() {
  const at = view.cell.lastIndexOf("|");
  const row = configurationOf.get(view.cell.slice(0, at)), name = view.cell.slice(at + 1);
  return row && studyColumn.has(name) && cellOf(row, name) ? { row, name } : null;
}

/** Open the number that the address names, below its row. */
function openNumber() {
  const found = openedCell();
  if (!found) return;
  const { row, name } = found;
  const place = shownRows.items.findIndex((item) => item === row || (item.models && item.models.get(row.model) === row));
  while (place >= shownRows.to && shownRows.to < shownRows.items.length) moreRows();
  const button = allOf("#numbers [data-cell]").find((each) => each.dataset.cell === view.cell);
  const line = button ? button.closest("tr") : document.getElementById("numbers").children[place];
  const detail = el("tr", { class: "detail-row", id: "number-detail" },
    el("td", { colspan: String(shownRows.columns.length) }, unitDetail(row, name)));
  if (line) line.after(detail);
  else document.getElementById("numbers").prepend(detail); // its filters hide the row
  if (!button) return;
  button.setAttribute("aria-expanded", "true");
}

function closeNumber() {
  document.getElementById("number-detail")?.remove();
  for (const button of allOf("#numbers [aria-expanded=true]")) button.setAttribute("aria-expanded", "false");
}

/** Open a configuration's number from elsewhere on the page, and go there. */
export function showNumber(row, name) {
  look({ layout: "", cell: cellKey(row, name) });
  const detail = document.getElementById("number-detail");
  if (!detail) return;
  detail.scrollIntoView({ block: "center", behavior: "instant" });
  detail.setAttribute("tabindex", "-1");
  detail.focus({ preventScroll: true });
}

/** Open a configuration by whichever shown metric it has. */
export function showUnitsOf(row) {
  const name = [...shownColumns(), ...filledColumns.map((column) => column.key)].find((each) => cellOf(row, each));
  if (name) showNumber(row, name);
}

/** Return the shown table as records: one per row, three fields per metric or model. */
function tableRecords() {
  const facts = factColumns(view.layout);
  const numbers = shownRows.columns.slice(facts.length);
  const head = [...facts.map((column) => column.title.toLowerCase()), ...numbers.flatMap((column) => {
    const name = view.layout ? `${column.key} ${column.metric}` : column.metric;
    return [name, `${name} change`, `${name} low`, `${name} high`];
  })];
  return [head, ...shownRows.items.map((item) => [...facts.map((column) => item[column.key]), ...numbers.flatMap((column) => {
    const row = column.row(item), cell = row && cellOf(row, column.metric);
    return cell ? [cell.value, cell.change, cell.low, cell.high] : [null, null, null, null];
  })])];
}

/** Return what a mark of a figure says of a configuration. */
export function rowText(row, names) {
  return `${row.model} / ${row.text}: ${names.map((name) => `${columnTitle(name)} ${cellText(cellOf(row, name))}`).join("; ")}`;
}
