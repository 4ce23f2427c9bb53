// Which configurations keep given margins, and which nothing else beats: how surely. Numbers in, numbers
// out; the same rules as clipq.study.advice. A loss is known with an error: value + sampling Z + drawn T,
// Z normal and T Student's of seeds - 1 degrees of freedom. Probabilities are shares of draws of all losses.
import { quantileOf, randomNumbers } from "./chances.js";

const TAIL = 0.025; // error rate of each side
const DRAWS = 1000;
const AT_MOST = 1e6; // numbers that are drawn; of many options in many criteria fewer times
const SEED = 20260731;

/** @typedef {{ value: number, sampling: number, drawn: number, seeds: number }} Loss positive = worse */
/** @typedef {{ cost: number | null, losses: Loss[], margins: number[] }} Option losses and margins by criterion */

/** Return the half-width of a loss's interval that leaves `tail` on either side. */
export function halfOf({ sampling, drawn, seeds }, tail = TAIL) {
  const sampled = quantileOf(tail) * sampling;
  const spread = drawn > 0 ? quantileOf(tail, seeds - 1) * drawn : 0;
  return Math.sqrt(sampled * sampled + spread * spread);
}

/**
 * Return what may truly be: draws of the losses of N options in M criteria, draw by draw. Numbers of one
 * criterion that are equal are of the same predictions, and share their draws.
 * @param {Loss[][]} losses of each option
 */
export function drawLosses(losses) {
  const width = losses[0].length, draws = Math.min(DRAWS, Math.max(250, Math.round(AT_MOST / (losses.length * width)))), first = new Map(), { normal, student } = randomNumbers(SEED);
  const same = losses.flatMap((own, at) => own.map((loss, column) => {
    const key = `${column} ${loss.value} ${loss.sampling} ${loss.drawn} ${loss.seeds}`;
    if (!first.has(key)) first.set(key, at * width + column);
    return first.get(key);
  }));
  const flat = losses.flat(), size = flat.length, found = new Float32Array(draws * size);
  for (let start = 0; start < found.length; start += size) {
    for (let at = 0; at < size; at += 1) {
      const { value, sampling, drawn, seeds } = flat[at];
      found[start + at] = same[at] < at ? found[start + same[at]]
        : value + sampling * normal() + (drawn > 0 ? drawn * student(seeds - 1) : 0);
    }
  }
  return { found, draws, size, width };
}

/**
 * Judge options of one model by draws of their losses.
 * @param {Option[]} options
 * @returns {any[]} of each: `answer`, criteria that are surely `over` their margin or `open` (by place),
 *   `meets` (probability of keeping all margins), `worst` (largest loss in margins, of criterion `limit`),
 *   and probabilities of fronts: of cost and the worst loss in margins (`front`), and of cost and
 *   one criterion (`fronts`); null without a cost
 */
export function advise(options, drawn) {
  const judged = options.map((option) => judge(option));
  const { found, draws, size, width } = drawn;
  const priced = judged.filter(({ option }) => option.cost !== null).sort((a, b) => a.option.cost - b.option.cost);
  const worst = new Float64Array(options.length), counts = judged.map(() => ({ meets: 0, front: 0, fronts: new Float64Array(width) }));
  const place = new Map(judged.map((item, at) => [item, at]));
  const ordered = priced.map((item) => place.get(item));
  const count = (value, add) => countFront(ordered, options, value, add);
  for (let start = 0; start < found.length; start += size) {
    for (let at = 0; at < options.length; at += 1) {
      let most = -Infinity;
      for (let column = 0; column < width; column += 1) most = Math.max(most, found[start + at * width + column] / options[at].margins[column]);
      worst[at] = most;
      if (most <= 1) counts[at].meets += 1;
    }
    count((at) => worst[at], (at) => { counts[at].front += 1; });
    for (let column = 0; column < width; column += 1) {
      count((at) => found[start + at * width + column], (at) => { counts[at].fronts[column] += 1; });
    }
  }
  judged.forEach((item, at) => {
    item.meets = counts[at].meets / draws;
    if (item.answer === "open") item.answer = item.meets >= 0.5 ? "probably" : "hardly";
    item.front = item.option.cost === null ? null : counts[at].front / draws;
    item.fronts = item.option.cost === null ? null : [...counts[at].fronts].map((share) => share / draws);
  });
  return judged;
}

/** Say what is sure: each criterion at the full rate for "surely", at the rate over their number for "surely not". */
function judge(option) {
  const over = [], open = [];
  option.losses.forEach((loss, at) => {
    if (loss.value - halfOf(loss, TAIL / option.losses.length) > option.margins[at]) over.push(at);
    else if (loss.value + halfOf(loss) > option.margins[at]) open.push(at);
  });
  const excess = option.losses.map((loss, at) => loss.value / option.margins[at]);
  const worst = Math.max(...excess);
  return { option, over, open, answer: over.length ? "surely not" : open.length ? "open" : "surely", worst, limit: excess.indexOf(worst) };
}

/** Tell of each option whether nothing costs as little and has as little of a value, and less of one. */
function countFront(ordered, options, value, add) {
  let least = Infinity;
  for (let from = 0; from < ordered.length;) {
    let to = from, best = Infinity;
    for (; to < ordered.length && options[ordered[to]].cost === options[ordered[from]].cost; to += 1) best = Math.min(best, value(ordered[to]));
    for (let place = from; place < to; place += 1) {
      if (value(ordered[place]) < least && value(ordered[place]) <= best) add(ordered[place]);
    }
    least = Math.min(least, best);
    from = to;
  }
}

/** Return how probably nothing costs as little and loses as little of every criterion; null without a cost. */
export function jointFront(options, { found, draws, size, width }) {
  const counts = options.map(() => 0);
  const ordered = options.map((_, at) => at).filter((at) => options[at].cost !== null).sort((a, b) => options[a].cost - options[b].cost);
  // Of many options fewer draws do: each takes their number squared.
  const enough = Math.min(draws, Math.max(200, Math.floor(2e7 / ordered.length ** 2)));
  for (let draw = 0; draw < enough; draw += 1) {
    const start = draw * size, cheaper = [];
    const beats = (one, other, equal) => {
      let less = equal;
      for (let column = 0; column < width; column += 1) {
        const a = found[start + one * width + column], b = found[start + other * width + column];
        if (a > b) return false;
        if (a < b) less = true;
      }
      return less;
    };
    for (let from = 0; from < ordered.length;) {
      const group = ordered.slice(from).filter((at) => options[at].cost === options[ordered[from]].cost);
      const kept = group.filter((at) => !cheaper.some((other) => beats(other, at, true)) && !group.some((other) => other !== at && beats(other, at, false)));
      for (const at of kept) counts[at] += 1;
      cheaper.push(...kept);
      from += group.length;
    }
  }
  return counts.map((count, at) => (options[at].cost === null ? null : count / enough));
}
