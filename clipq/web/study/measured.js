// The study that the page shows: models, columns, and configurations with their cells.
export const study = JSON.parse(document.getElementById("study").textContent);
const studyColumns = study.columns;
// Those that anything was measured of.
export const filledColumns = studyColumns.filter(({ key }) => study.cells[key] && study.cells[key].value);
export const studyColumn = new Map(studyColumns.map((column) => [column.key, column]));
export const studyModels = study.models;
export const studyModel = new Map(studyModels.map((model) => [model.name, model]));
export const configurations = configurationsOf(study);
export const configurationOf = new Map(configurations.map((row) => [row.id, row]));
export const KINDS = new Map([["ptq", "PTQ"], ["qat", "QAT"], ["noise", "noise"]]);
export const methods = studyValues("method");
// Costs that anything has.
export const costs = new Map(study.costs.filter((cost) => cost.of.length).map((cost) => [cost.key, cost]));

function configurationsOf({ configurations: packed, models, texts }) {
  return packed.quantizer.map((_, at) => {
    const text = (name) => texts[packed[name][at]];
    const row = {
      at, id: text("id"), model: models[packed.model[at]].name, text: text("quantizer"), kind: text("kind"),
      method: text("method"), bits: text("bits"), towers: text("towers"),
      calibration: packed.calibration_samples[at], seeds: packed.seeds[at],
      units: packed.units[at].map((unit) => texts[unit]), residual: packed.residual[at],
    };
    return Object.assign(row, { search: `${row.id} ${row.kind} ${row.bits} ${row.towers}`.toLowerCase() });
  });
}

/**
 * Return a configuration's cell of a column, null where it was not measured: the mean over seeds, the
 * change against FP32 with its interval (of what has no FP32 value: the value's own), the errors behind
 * it, what each seed gave, and whether it is surely better (1), surely worse (-1) or neither (0).
 */
export function cellOf(row, key) {
  const packed = study.cells[key];
  const of = (name) => (packed && packed[name] && packed[name].length ? packed[name][row.at] : null);
  if (of("value") === null) return null;
  return {
    value: of("value"), change: of("change"), compared: of("change") !== null, low: of("low"), high: of("high"),
    sampling: of("sampling"), drawn: of("drawn") ?? 0, seeds: of("seeds") ?? 1, margin: of("margin"), better: of("sure") ?? 0,
    bySeed: of("by_seed") || [],
  };
}

/** Return what a configuration costs, null where that is not known. */
export function costOf(row, key) {
  return costs.has(key) ? costs.get(key).of[row.at] : null;
}

/** Return a cost as it is shown: bytes as megabytes. */
export function costShown(key, value) {
  return costs.get(key).unit === "bytes" ? value / 1e6 : value;
}

export function costTitle(key) {
  const { title, unit } = costs.get(key);
  return unit === "bits" ? title : `${title} (${unit === "bytes" ? "MB" : unit})`;
}

/** Return 1 where more is better, -1 where less is. */
export function signOf(column) {
  return column.better === "higher" ? 1 : -1;
}

/** Return the different values of a property of configurations, in order. */
export function studyValues(name) {
  return [...new Set(configurations.map((row) => row[name]))].sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
}

export function columnTitle(key) {
  if (!studyColumn.has(key)) return key;
  const { title, unit } = studyColumn.get(key);
  return unit === "dB" ? `${title} (dB)` : title;
}

/** Return whether a configuration has a change of a column. */
export function changed(row, key) {
  const cell = cellOf(row, key);
  return Boolean(cell && cell.compared);
}
