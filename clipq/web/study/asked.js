// What the reader asks of a model: which metrics may lose how much.
import { cellOf, configurations, study } from "./measured.js";
import { view } from "./view.js";

/** Return the columns that a margin can be asked of: those that the study asks, with a margin of the project's. */
export function criteriaOf(model) {
  return study.criteria.filter((key) => projectMargins(model, key));
}

/** Return the least and the largest of the project's margins over formats, null where it has none. */
export function projectMargins(model, key) {
  const found = configurations.filter((row) => row.model === model).map((row) => cellOf(row, key)?.margin).filter((margin) => margin > 0);
  return found.length ? [Math.min(...found), Math.max(...found)] : null;
}

/** Return the margins that are asked for, by column: a number, or null for each configuration's own. */
export function askedOf(model) {
  const found = Object.fromEntries(criteriaOf(model).map((key) => [key, null]));
  for (const part of view.margins.split(" ").filter(Boolean)) {
    const at = part.lastIndexOf("="), key = part.slice(0, at), margin = Number(part.slice(at + 1));
    if (!(key in found)) continue;
    if (part.slice(at + 1) === "none") delete found[key];
    else if (margin > 0 && Number.isFinite(margin)) found[key] = margin;
  }
  return found;
}
