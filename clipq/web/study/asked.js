// What the reader asks of a model: which metrics may lose how much.
import { cellOf, configurations, study } from "./measured.js";
import { view } from "./view.js";

/** Return the columns that a margin can be asked of: those that the study asks, with a margin of the project's. */
export function criteriaOf(model) {
  return study.criteria.filter((key) => projectMargin(model, key));
}

/**
 * Return the smallest of the project's margins, null where it has none. Formats may have their own; of all
 * there is one here, or formats could not be compared.
 */
export function projectMargin(model, key) {
  const found = configurations.filter((row) => row.model === model && row.kind !== "noise").map((row) => cellOf(row, key)?.margin).filter((margin) => margin > 0);
  return found.length ? Math.min(...found) : null;
}

/** Return the margins that are asked for, by column. */
export function askedOf(model) {
  const found = Object.fromEntries(criteriaOf(model).map((key) => [key, projectMargin(model, key)]));
  for (const part of view.margins.split(" ").filter(Boolean)) {
    const at = part.lastIndexOf("="), key = part.slice(0, at), margin = Number(part.slice(at + 1));
    if (!(key in found)) continue;
    if (part.slice(at + 1) === "none") delete found[key];
    else if (margin > 0 && Number.isFinite(margin)) found[key] = margin;
  }
  return found;
}
