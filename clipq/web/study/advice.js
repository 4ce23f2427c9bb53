// Which quantizer under these margins: how sure it is that each keeps them, and that nothing is both
// cheaper and better. Numbers in, numbers out: the same as the command line computes.

const Z95 = 1.959963984540054;
const STEPS = 512; // places at which distributions of the worst loss are compared

/** Return the probability that a standard normal number is below `z` (to 1e-15, by a continued fraction). */
export function normalBelow(z) {
  const size = Math.abs(z);
  let tail = 0;
  if (size < 3) {
    let term = size, sum = size;
    for (let n = 1; n < 100 && Math.abs(term) > 1e-17 * Math.abs(sum); n += 1) {
      term *= (size * size) / (2 * n + 1);
      sum += term;
    }
    tail = 0.5 - sum * Math.exp((-size * size) / 2) / Math.sqrt(2 * Math.PI);
  } else {
    let fraction = 0;
    for (let n = 60; n > 0; n -= 1) fraction = n / (size + fraction);
    tail = Math.exp((-size * size) / 2) / Math.sqrt(2 * Math.PI) / (size + fraction);
  }
  return z > 0 ? 1 - tail : tail;
}

/** Return the standard error of a change with this 95 % interval. */
export function errorOf(low, high) {
  return (high - low) / (2 * Z95);
}

/** Return the probability that a loss is at most `limit`. */
function lossBelow({ loss, error }, limit) {
  if (!(error > 0)) return loss <= limit ? 1 : 0;
  return normalBelow((limit - loss) / error);
}

/**
 * Judge configurations of one model.
 *
 * @param {{ id: string, cost: number | null, losses: Record<string, { loss: number, error: number } | null> }[]} options
 * @param {Record<string, number>} margins by column; a loss is in the column's unit, positive = worse
 * @returns {any[]} of each: `keeps` (probability by column), `all` (that every margin is kept, at least:
 *   whatever the correlation), `worst` (largest loss in margins; `limit` says of which column), `front`
 *   (probability that no other is as cheap and has a smaller worst loss); null where something is unmeasured
 */
export function advise(options, margins) {
  const names = Object.keys(margins);
  const judged = options.map((option) => {
    const held = names.map((name) => option.losses[name]);
    if (!names.length || held.some((loss) => !loss)) return { option, keeps: {}, all: null, worst: null, limit: "", front: null };
    const keeps = Object.fromEntries(names.map((name, at) => [name, lossBelow(held[at], margins[name])]));
    const excess = held.map(({ loss }, at) => loss / margins[names[at]]);
    const worst = Math.max(...excess);
    return {
      option, keeps, worst, limit: names[excess.indexOf(worst)], front: null,
      all: Math.max(0, 1 - Object.values(keeps).reduce((sum, keep) => sum + (1 - keep), 0)),
    };
  });
  placeOnFront(judged.filter((item) => item.worst !== null && item.option.cost !== null), margins);
  return judged;
}

/**
 * Give each its `front`. The worst loss W of each is compared with those of all that cost no more:
 * P(front) = sum over places of P(W there) times the product of P(W of the other is beyond). Metrics and
 * configurations count as independent; all are measured on the same samples, so that two are told apart
 * rather better than this says.
 */
function placeOnFront(items, margins) {
  if (!items.length) return;
  const edges = placesOf(items, margins);
  const tables = items.map((item) => worstTable(item, margins, edges));
  const groups = new Map();
  items.forEach((item, at) => {
    const group = groups.get(item.option.cost) || [];
    groups.set(item.option.cost, [...group, at]);
  });
  let cheaper = new Float64Array(STEPS).fill(1);
  for (const cost of [...groups.keys()].sort((a, b) => a - b)) {
    const group = groups.get(cost), after = [new Float64Array(STEPS).fill(1)];
    for (const at of [...group].reverse()) after.push(after[after.length - 1].map((value, step) => value * tables[at].beyond[step]));
    for (const at of group) {
      after.pop();
      const others = after[after.length - 1];
      items[at].front = Math.min(1, tables[at].mass.reduce((sum, mass, step) => sum + mass * cheaper[step] * others[step], 0));
      cheaper = cheaper.map((value, step) => value * tables[at].beyond[step]);
    }
  }
}

/** Return places in margins, close together around 0 and wide apart where everything collapsed. */
function placesOf(items, margins) {
  let low = Infinity, high = -Infinity;
  for (const { option, worst } of items) {
    const widest = Math.max(...Object.keys(margins).map((name) => option.losses[name].error / margins[name]));
    low = Math.min(low, worst - 6 * widest - 1e-6);
    high = Math.max(high, worst + 6 * widest + 1e-6);
  }
  const from = Math.asinh(low), step = (Math.asinh(high) - from) / STEPS;
  return Array.from({ length: STEPS + 1 }, (_, at) => Math.sinh(from + at * step));
}

/** Return how likely the worst loss lies between two places, and beyond their middle. */
function worstTable({ option }, margins, edges) {
  const names = Object.keys(margins);
  const below = edges.map((edge) => names.reduce((product, name) => product * lossBelow(option.losses[name], edge * margins[name]), 1));
  return {
    mass: Float64Array.from({ length: STEPS }, (_, at) => below[at + 1] - below[at]),
    beyond: Float64Array.from({ length: STEPS }, (_, at) => 1 - (below[at] + below[at + 1]) / 2),
  };
}
