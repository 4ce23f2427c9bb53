// The study's figures: what changes together, over all configurations that the filters leave.
import { line } from "../shared/axes.js";
import { choice } from "../shared/controls.js";
import { el, section, svg } from "../shared/elements.js";
import { better, number } from "../shared/format.js";
import { frontOf, shape, staircase } from "../shared/marks.js";
import { curve } from "../shared/plot.js";
import { chosen, choiceChanged } from "./chosen.js";
import { cellOf, changed, columnTitle, costOf, costs, costShown, costTitle, filledColumns, methods, signOf, study, studyColumn, studyModel, studyModels } from "./measured.js";
import { changeText, intervalText } from "./numbers.js";
import { scatter } from "./scatter.js";
import { spectra } from "./spectra.js";
import { rowText } from "./study-table.js";
import { look, onView, view } from "./view.js";

export function pictures() {
  if (!filledColumns.length) return null;
  const body = el("div", { class: "charts pictures" });
  const keys = el("div", { class: "keys-of-marks" });
  const draw = () => {
    keys.replaceChildren(methodLegend());
    body.replaceChildren(...[...figuresAsked(), spectra(chosen()), paretoFigure(), ownFigure()].filter(Boolean));
  };
  onView((before) => {
    if (choiceChanged(before) || ["x", "y", "range", "cost", "kept"].some((key) => before[key] !== view[key])) draw();
  });
  const model = studyModels.length > 1
    ? choice("model", [["", "all"], ...studyModels.map(({ name }) => [name, name])], view.model, (name) => look({ model: name, cell: "" })) : null;
  onView(() => { if (model) model.lastChild.value = view.model; });
  draw();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
  return section("figures", "Figures",
    el("p", { class: "quiet" }, "Every figure shows the configurations that the filters of the table leave. Bars are 95 % intervals over samples and seeds; beyond 80 marks only of the one that is pointed at."),
    el("div", { class: "row filters" }, model,
      choice("axes", [["", "without what collapsed"], ["all", "all"]], view.range, (range) => look({ range }))), keys, body);
}

/** Return a legend whose entries show one method alone. */
function methodLegend() {
  const there = new Set(chosen({ method: "" }).map((row) => row.method));
  return el("div", { class: "legend", role: "group", "aria-label": "Methods; press one to see it alone" },
    methods.filter((method) => there.has(method)).map((method) => el("button", {
      type: "button", class: "small method", "aria-pressed": String(view.method === method),
      onclick: () => look({ method: view.method === method ? "" : method, cell: "" }),
    }, svg("svg", { viewBox: "0 0 14 14", class: "plot key", "aria-hidden": "true" }, shape(methods.indexOf(method), 7, 7, true)), ` ${method}`)),
    el("span", { class: "quiet" }, "filled: PTQ; hollow: QAT"));
}

/** Return the figures that the study asks for. */
function figuresAsked() {
  return study.figures.map(({ title, x, y }) => (x === "bias" ? biasFigure(title, y) : pairFigure(x, y, title)));
}

/** How FP32's confidence decides what quantization does to calibration. */
function biasFigure(title, name) {
  const known = studyModels.filter((model) => model.bias);
  if (!studyColumn.has(name) || !known.length) return null;
  const biases = known.map((model) => model.bias.value).sort((a, b) => a - b);
  const gaps = biases.slice(1).map((value, at) => value - biases[at]).filter((gap) => gap > 0);
  const range = biases[biases.length - 1] - biases[0] || 0.05;
  const room = Math.min(range * 0.2, ...gaps.map((gap) => gap * 0.8));
  const points = chosen().filter((row) => studyModel.get(row.model).bias && changed(row, name)).map((row) => {
    const cell = cellOf(row, name), aside = methods.length > 1 ? (methods.indexOf(row.method) / (methods.length - 1) - 0.5) * room : 0;
    return { row, x: studyModel.get(row.model).bias.value + aside, y: cell.change, yLow: cell.low, yHigh: cell.high, say: () => rowText(row, [name]) };
  });
  if (!points.length) return null;
  const stands = known.map(({ name: model, bias }) => `${model} ${changeText(bias.value, (bias.high - bias.low) / 2)} ${intervalText(bias.low, bias.high)}`).join("; ");
  return scatter({
    title, name, points,
    note: `left of 0 FP32 is under-confident, right of it over-confident (${stands}); marks of a model stand side by side by method`,
    x: { label: "FP32: mean confidence − accuracy", whole: true }, y: { label: `change of ${columnTitle(name)}${wish(name)}` },
    more: (chart) => known.map(({ bias }) => line(chart.x(bias.low), chart.y(0), chart.x(bias.high), chart.y(0), "known")),
  });
}

function wish(name) {
  return `, ${better(studyColumn.get(name).better)}`;
}

/** Any two metrics that the reader chooses. */
function ownFigure() {
  if (filledColumns.length < 3) return null;
  const own = [view.x, view.y].every((name) => studyColumn.has(name)) ? [view.x, view.y] : [filledColumns[0].key, filledColumns[1].key];
  const names = filledColumns.filter((column) => !column.level).map((column) => [column.key, column.title]);
  return el("div", { class: "own" },
    el("div", { class: "row filters" }, choice("across", names, own[0], (x) => look({ x, y: own[1] })), choice("upward", names, own[1], (y) => look({ x: own[0], y }))),
    pairFigure(own[0], own[1]) || el("p", { class: "quiet" }, "No configuration has both."));
}

function pairFigure(across, upward, title = `Change of ${columnTitle(upward)} against change of ${columnTitle(across)}`) {
  const points = chosen().filter((row) => changed(row, across) && changed(row, upward)).map((row) => {
    const x = cellOf(row, across), y = cellOf(row, upward);
    return { row, x: x.change, xLow: x.low, xHigh: x.high, y: y.change, yLow: y.low, yHigh: y.high, say: () => rowText(row, [across, upward]) };
  });
  if (!points.length) return null;
  return scatter({
    title, note: correlation(points), name: upward, points,
    x: { label: `change of ${columnTitle(across)}${wish(across)}` }, y: { label: `change of ${columnTitle(upward)}${wish(upward)}` },
  });
}

/** Say how points go together: by ranks, since one collapse would decide a correlation of values. */
function correlation(points) {
  if (points.length < 3) return "";
  const ranks = (axis) => {
    const sorted = points.map((point, at) => [point[axis], at]).sort(([a], [b]) => a - b);
    const found = new Array(points.length);
    for (let from = 0; from < sorted.length;) {
      let to = from;
      while (to + 1 < sorted.length && sorted[to + 1][0] === sorted[from][0]) to += 1;
      for (let at = from; at <= to; at += 1) found[sorted[at][1]] = (from + to) / 2;
      from = to + 1;
    }
    return found;
  };
  const [a, b] = [ranks("x"), ranks("y")], mean = (points.length - 1) / 2;
  const sum = (one, other) => one.reduce((total, value, at) => total + (value - mean) * (other[at] - mean), 0);
  const scaleOf = Math.sqrt(sum(a, a) * sum(b, b));
  return scaleOf ? `rank correlation ${number(Number((sum(a, b) / scaleOf).toPrecision(2)))} over ${points.length.toLocaleString("en")} configurations` : "";
}

/** What a configuration costs against what it keeps. */
function paretoFigure() {
  const rows = chosen(), known = [...costs.keys()].filter((key) => rows.some((row) => costOf(row, key) !== null));
  if (!known.length) return null;
  const cost = known.includes(view.cost) ? view.cost : known[0];
  const kept = studyColumn.has(view.kept) ? view.kept : studyColumn.has("ece") ? "ece" : filledColumns[0].key;
  const title = costTitle(cost);
  const points = rows.filter((row) => costOf(row, cost) !== null && cellOf(row, kept)).map((row) => {
    const cell = cellOf(row, kept), x = costShown(cost, costOf(row, cost));
    return {
      row, x, y: cell.compared ? cell.change : cell.value, yLow: cell.low, yHigh: cell.high,
      say: () => `${title} ${number(Number(x.toPrecision(3)))}; ${rowText(row, [kept])}`,
    };
  });
  const sign = signOf(studyColumn.get(kept)), compared = !studyColumn.get(kept).level;
  const fronts = [...new Set(points.map((point) => point.row.model))].map((model) => frontOf(points.filter((point) => point.row.model === model), (point) => -sign * point.y));
  return el("div", { class: "own" },
    el("div", { class: "row filters" },
      choice("cost", known.map((key) => [key, costTitle(key)]), cost, (key) => look({ cost: key })),
      choice("kept", filledColumns.map((column) => [column.key, column.title]), kept, (key) => look({ kept: key }))),
    points.length ? scatter({
      title: `${columnTitle(kept)} against ${title}`, name: kept, points, apart: true,
      note: "the line of each model is its Pareto front by means: nothing is both cheaper and better. How sure a place on it is, the adviser says",
      x: { label: title, zero: false, whole: true }, y: { label: `${compared ? "change of " : ""}${columnTitle(kept)}${wish(kept)}`, zero: compared },
      more: (chart) => fronts.map((front) => curve(staircase(front, chart), "front")),
    }) : el("p", { class: "quiet" }, "No configuration has both."));
}
