// What the data files hold, as objects of this page. Names are texts and never keys of objects.
import { el } from "../shared/elements.js";
import { judged } from "../shared/verdicts.js";
import { unpack } from "./columns.js";

export let site = null;
export const Z95 = 1.96;
const ARRIVALS = new Map();
const COLUMNS = new Map();

// Where trusted types are enforced, this is the only address that a script may be loaded from.
const SCRIPTS = { createScriptURL: (name) => {
  if (!/^data\/pair-\d+\.[0-9a-f]{12}\.js$/.test(name)) throw new TypeError("not a file of this site");
  return name;
} };
const scripts = "trustedTypes" in globalThis ? globalThis.trustedTypes.createPolicy("clipq", SCRIPTS) : SCRIPTS;

/** Take up what every page needs. */
export function takeOverview(data) {
  site = siteOf(data);
}

/** Take up a pair's file, which `load` asked for. */
export function takePair(number, columns) {
  ARRIVALS.get(number)?.(columns);
}

function siteOf(data) {
  const runs = data.runs.number.map((number, at) => ({
    at, number, id: data.runs.id[at], started: data.runs.started[at], sha: data.runs.sha[at],
    subject: data.runs.subject[at], branch: data.runs.branch[at], dirty: data.runs.dirty[at] === 1,
    policy: data.runs.policy[at], passed: data.runs.passed[at] === 1, cases: data.runs.cases[at],
    counts: data.verdicts.map((_, verdict) => data.runs.counts[at][verdict] || 0),
    environment: data.environments[data.runs.environment[at]],
  }));
  const latest = runs[runs.length - 1];
  const blocks = new Map(Object.entries(data.blocks));
  const blocking = blocks.get(latest.policy) || blocks.get("release");
  const pairs = data.pairs.map(([model, quantizer], at) => ({
    at, model, quantizer, file: data.files[at], cases: [],
    passed: unpack(data.pairPassed[at]), present: unpack(data.pairPresent[at]),
  }));
  const columns = data.cases;
  const cases = columns.pair.map((pair, at) => {
    const { model, quantizer } = pairs[pair];
    const found = {
      at, pair: pairs[pair], model, quantizer, key: data.keys[columns.key[at]],
      unit: data.units[columns.unit[at]], direction: columns.direction[at],
      margin: columns.margin[at], last: columns.last[at], since: columns.since[at],
      verdict: columns.verdict[at] < 0 ? "" : data.verdicts[columns.verdict[at]],
      blocks: columns.verdict[at] >= 0 && blocking[columns.verdict[at]],
      loss: columns.loss[at], error: columns.error[at],
      observed: columns.observed[at], baseline: columns.baseline[at], steps: [],
    };
    const half = found.loss !== null && found.error > 0 ? Z95 * found.error : null;
    found.low = half === null ? null : found.loss - half;
    found.high = half === null ? null : found.loss + half;
    found.standing = found.verdict;
    judged(found);
    found.limit = found.floor ? 0 : found.margin; // in the unit of the loss
    found.stale = found.last < latest.at;
    found.row = pairs[pair].cases.length;
    found.search = `${found.id} ${found.verdict} ${found.unit}`.toLowerCase();
    pairs[pair].cases.push(found);
    return found;
  });
  const steps = data.steps.case.map((number, at) => {
    const step = { at, item: cases[number], run: runs[data.steps.run[at]], last: runs[data.steps.last[at]],
      confirmed: data.steps.confirmed[at] === 1 };
    for (const name of ["before", "after", "margins", "errors", "jitter", "reference"]) {
      step[name] = data.steps[name][at];
    }
    step.worse = step.after > step.before;
    step.size = Math.abs(step.margins ?? 0);
    step.search = `${step.item.id} ${step.run.sha} ${step.run.subject} ${step.run.branch}`.toLowerCase();
    step.item.steps.unshift(step); // the list is newest first, a case's own steps oldest first
    return step;
  });
  const known = new Map(cases.map((item) => [item.id, item]));
  return { runs, latest, pairs, cases, steps, known, models: data.models, verdicts: data.verdicts, blocks, link: data.link };
}

/** Load what one case measured over all runs. */
export async function historyOf(item) {
  const columns = await load(item.pair);
  const row = item.row, exponent = columns.exponent[row];
  const [loss, error, baseline] = ["loss", "error", "baseline"].map((name) => unpack(columns[name][row], exponent));
  const sign = item.direction === "higher" ? -1 : 1;
  const own = columns.observed[row];
  const observed = own ? unpack(own, exponent) : baseline.map((value, at) => value + sign * loss[at]);
  const verdicts = unpack(columns.verdict[row]).map((number) => (number < 0 ? "" : site.verdicts[number]));
  return { loss, error, baseline, observed, verdicts, odd: new Set(columns.odd[row]) };
}

/** Load a pair's file, once. A script element works where fetch() does not: in pages opened as files. */
function load(pair) {
  if (!COLUMNS.has(pair.at)) {
    COLUMNS.set(pair.at, new Promise((resolve, reject) => {
      ARRIVALS.set(pair.at, resolve);
      const script = el("script", { onerror: () => { COLUMNS.delete(pair.at); reject(new Error(pair.file)); } });
      script.src = scripts.createScriptURL(pair.file);
      document.head.append(script);
    }));
  }
  return COLUMNS.get(pair.at);
}

/** Return how many cases of a run block by its own policy. */
export function blockingCount(run) {
  const blocking = site.blocks.get(run.policy) || site.blocks.get("release");
  return run.counts.reduce((sum, amount, verdict) => sum + (blocking[verdict] ? amount : 0), 0);
}
