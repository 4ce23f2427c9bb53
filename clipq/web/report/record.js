// The run that the page shows.
import { number } from "../shared/format.js";
import { judged, RANK, standingOf, tally, worstOf } from "../shared/verdicts.js";

export const run = JSON.parse(document.getElementById("record").textContent);
export const cases = casesOf(run);
export const caseOf = new Map(cases.map((item) => [item.id, item]));
export const pairs = pairUp(cases);
export const evidence = run.evidence || {};
export const figures = evidence.figures || {};

function casesOf({ cases: columns, texts, blocks }) {
  const blocking = new Set(blocks);
  return columns.model.map((_, at) => {
    const text = (name) => texts[columns[name][at]];
    const found = {
      at, model: text("model"), quantizer: text("quantizer"), probe: text("probe"),
      metric: text("metric"), verdict: text("verdict"), reason: text("reason"), unit: text("unit"),
      direction: text("direction"), command: text("next_command"),
    };
    for (const name of ["metric_version", "samples", "baseline", "observed", "loss", "margin", "low",
      "high", "p_value", "adjusted_p", "standard_error", "samples_needed", "offset"]) {
      found[name] = columns[name][at];
    }
    found.key = `${found.probe}.${found.metric}`;
    found.blocks = blocking.has(found.verdict);
    found.standing = standingOf(found);
    judged(found);
    found.search = `${found.id} ${found.verdict} ${found.standing} ${found.unit} ${found.reason}`.toLowerCase();
    return found;
  });
}

/** Group cases by model and quantizer. */
function pairUp(all) {
  const found = new Map();
  for (const item of all) {
    const key = `${item.model}/${item.quantizer}`;
    if (!found.has(key)) {
      found.set(key, { key, model: item.model, quantizer: item.quantizer, cases: [] });
    }
    found.get(key).cases.push(item);
  }
  for (const pair of found.values()) {
    pair.counts = tally(pair.cases);
    pair.standing = worstOf(pair.counts);
    const compared = pair.cases.filter((item) => item.excess !== null && item.loss > 0);
    pair.worst = compared.sort((a, b) => b.excess - a.excess)[0] || null;
  }
  return found;
}

export function worstPairFirst(a, b) {
  return RANK.indexOf(b.standing) - RANK.indexOf(a.standing)
    || (b.worst ? b.worst.excess : 0) - (a.worst ? a.worst.excess : 0);
}

export function distinct(all, name) {
  return [...new Set(all.map((item) => item[name]))].sort();
}

/** Return what FP32's and the quantized model's value of a metric are, from the case itself. */
export function measured(pair, probe, metric) {
  const found = caseOf.get(`${pair.model}/${pair.quantizer}/${probe}.${metric}`);
  if (!found || found.baseline === null || found.observed === null) return "";
  return `${metric} ${number(found.baseline)} → ${number(found.observed)}`;
}
