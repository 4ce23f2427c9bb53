// A case's numbers, with as many decimals as its margin can tell apart.
import { minus, number } from "../shared/format.js";
import { forest, forestAxis } from "../shared/interval.js";

/**
 * Return a value of a case in its unit: two digits beyond the margin's first. Numbers in one unit then
 * line up, and noise is not read as news.
 */
export function inUnit(item, value) {
  if (value === null || !item.margin) return number(value);
  const decimals = Math.max(0, Math.min(8, 2 - Math.floor(Math.log10(Math.abs(item.margin)))));
  return minus(value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
}

function lossText(item) {
  return item.loss > 0 ? `+${inUnit(item, item.loss)}` : inUnit(item, item.loss);
}

const textOf = (name) => ({ key: name, first: -1, by: (item) => item[name], number: true, cell: (item) => inUnit(item, item[name]) });

/** Columns of cases that more than one table has. */
export const VALUES = {
  baseline: { ...textOf("baseline"), title: "FP32" },
  observed: { ...textOf("observed"), title: "Observed" },
  loss: { ...textOf("loss"), title: "Loss", cell: lossText },
  margin: { ...textOf("margin"), title: "Margin" },
  interval: { key: "excess", first: -1, by: (item) => item.excess, title: "Loss / margin", cell: forest, axis: forestAxis },
  unit: { key: "unit", by: (item) => item.unit, title: "Unit", cell: (item) => item.unit || "–" },
};
