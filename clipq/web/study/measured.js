// The study that the page shows: models, columns, and configurations with their cells.
export const study = JSON.parse(document.getElementById("study").textContent);
export const studyColumns = study.columns;
export const studyColumn = new Map(studyColumns.map((column) => [column.name, column]));
export const studyModels = study.models;
export const studyModel = new Map(studyModels.map((model) => [model.name, model]));
export const configurations = configurationsOf(study);
export const configurationOf = new Map(configurations.map((row) => [row.id, row]));
export const KINDS = new Map([["ptq", "PTQ"], ["qat", "QAT"], ["noise", "noise"]]);
export const methods = studyValues("method");

function configurationsOf({ configurations: packed, texts }) {
  return packed.id.map((_, at) => {
    const text = (name) => texts[packed[name][at]];
    const row = {
      at, id: text("id"), model: text("model"), text: text("text"), method: text("method"),
      bits: text("bits"), towers: text("towers"), kind: text("kind"), calibration: packed.calibration[at],
      seeds: packed.seeds[at], units: packed.units[at].map((unit) => texts[unit]), spectrum: packed.spectrum[at],
      cost: Object.fromEntries(Object.entries(packed.cost).map(([name, values]) => [name, values[at]])),
    };
    return Object.assign(row, { search: `${row.id} ${row.kind} ${row.bits} ${row.towers}`.toLowerCase() });
  });
}

/**
 * Return a configuration's cell of a column, null where it was not measured: the mean over seeds, the
 * change against FP32 with its interval (of what has no FP32 value: the value's own), whether it is
 * surely better (1), surely worse (-1) or neither (0), and what each unit gave.
 */
export function cellOf(row, name) {
  const packed = study.cells[name];
  if (!packed || !packed.value) return null;
  const of = (key) => (packed[key] ? packed[key][row.at] : null);
  if (of("value") === null) return null;
  const change = of("change"), compared = change !== null;
  const units = of("units");
  return {
    value: of("value"), change, compared,
    low: compared ? of("change_low") : of("low"), high: compared ? of("change_high") : of("high"),
    better: of("better") ?? 0, drawn: of("drawn") ?? [],
    units: units === null ? row.units : units.map((unit) => study.texts[unit]),
  };
}

/** Return 1 where more is better, -1 where less is, 0 where neither. */
export function signOf(column) {
  return column.direction === "higher" ? 1 : column.direction === "lower" ? -1 : 0;
}

/** Return the different values of a property of configurations, in order. */
export function studyValues(name) {
  return [...new Set(configurations.map((row) => row[name]))].sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
}

/** Return the first column whose metric (and role) is one of these; the most wished for first. */
export function columnLike(...wishes) {
  for (const [metric, role] of wishes) {
    const found = studyColumns.find((column) => column.metric === metric && (!role || column.role === role));
    if (found) return found.name;
  }
  return "";
}

export function columnTitle(name) {
  const column = studyColumn.get(name);
  return column ? `${column.title}${column.unit ? ` (${column.unit})` : ""}` : name;
}
