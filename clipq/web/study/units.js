// What stands behind a number: its units, one per seed, and the command that asks the sweep for them.
import { copyButton } from "../shared/controls.js";
import { commandList, shellWord } from "../shared/commands.js";
import { el, factList } from "../shared/elements.js";
import { better, count, number } from "../shared/format.js";
import { table } from "../shared/tables.js";
import { cellOf, KINDS, study, studyColumn, studyModel } from "./measured.js";
import { cellText, intervalText, withDecimals } from "./numbers.js";
import { viewAddress } from "./view.js";

const ENOUGH = 12; // letters of an id that no two units of a sweep have in common

export function cellKey(row, name) {
  return `${row.id}|${name}`;
}

/** Return everything that is known of one number of a configuration. */
export function unitDetail(row, name) {
  const cell = cellOf(row, name), column = studyColumn.get(name);
  const half = cell.low === null ? 0 : (cell.high - cell.low) / 2;
  const facts = [
    ["model", row.model], ["configuration", el("code", {}, row.text)], ["kind", KINDS.get(row.kind)],
    ["metric", `${column.title}${column.unit ? ` in ${column.unit}` : ""}: ${better(column.better)}`],
    ["FP32", number(studyModel.get(row.model).fp32[name])], ["mean", withDecimals(cell.value, half)],
    cell.compared ? ["change [95 % interval]", cellText(cell)] : ["95 % interval", intervalText(cell.low, cell.high, withDecimals) || "–"],
    ...(cell.sampling === null ? [] : [["standard error over samples", number(cell.sampling)], ["over seeds", row.seeds.length > 1 ? number(cell.drawn) : "–"]]),
    ...(cell.margin === null ? [] : [["the project's margin", number(cell.margin)]]),
    ["calibration samples", row.calibration || "all"], ["probes", probesOfCell(row, name).join(", ") || "–"],
  ];
  // A unit per seed where seeds are named; else one unit. A run's record has none.
  const fromSweep = row.units.some(Boolean);
  const rows = row.units.map((unit, at) => [row.seeds.length === row.units.length ? String(row.seeds[at]) : "–", unit ? el("code", { class: "wrap" }, unit) : "a run's record",
    withDecimals(cell.bySeed.length > 1 ? cell.bySeed[at] ?? null : cell.value, half / 3)]);
  return el("div", { class: "detail" }, el("p", {}, sayWhetherSure(cell)), factList(facts),
    rows.length ? table({ caption: fromSweep ? `${count(rows.length, "unit")} of sweeps behind this number` : "What is behind this number", columns: [{ title: "Seed" }, { title: "Unit", names: true }, { title: "Value", number: true }], rows }) : null,
    fromSweep ? commandList([queryCommand(row, column)]) : null,
    el("div", { class: "row actions" }, copyButton("Copy link", () => new URL(viewAddress({ cell: cellKey(row, name) }), location.href).href)));
}

function probesOfCell(row, name) {
  return studyModel.get(row.model).probes[name] || [];
}

function sayWhetherSure(cell) {
  if (!cell.compared && cell.low !== null) return "FP32 has no value of this metric, or none to compare with: the number stands by itself.";
  if (cell.low === null) return "There is no interval: the seed matters here and one alone was measured, or nothing was resampled.";
  if (cell.better === 1) return "Surely better than FP32: the interval of the change lies on the better side of 0.";
  if (cell.better === -1) return "Surely worse than FP32: the interval of the change lies on the worse side of 0.";
  return "Neither surely better nor surely worse than FP32: the interval of the change holds 0.";
}

/** Return the command that asks a sweep for what a number rests on. */
function queryCommand(row, column) {
  const { sweep = "plan.toml" } = (study.provenance.sweeps || [])[0] || {};
  const literal = (text) => `'${String(text).replaceAll("'", "''")}'`;
  const among = (texts) => `IN (${texts.map(literal).join(", ")})`;
  const probes = probesOfCell(row, column.key);
  const where = [
    `left(unit_id, ${ENOUGH}) ${among(row.units.filter(Boolean).map((unit) => unit.slice(0, ENOUGH)))}`, `metric = ${literal(column.metric)}`,
    ...(probes.length ? [`probe ${among(probes)}`] : []),
  ].join(" AND ");
  const statement = `SELECT seed, unit_id, probe, baseline, observed, loss, low, high, verdict FROM cells WHERE ${where}`;
  // What is no plan is a sweep's folder; a command asks for the plan all the same.
  const place = /\.toml$/.test(sweep) ? shellWord(sweep) : `plan.toml --folder ${shellWord(sweep)}`;
  return `clipq sweep query ${place} ${shellWord(statement)}`;
}
