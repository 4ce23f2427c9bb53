const run = JSON.parse(document.getElementById("record").textContent);

// Every verdict has a symbol and a word besides its colour.
const VERDICTS = {
  pass: { symbol: "✓", word: "pass" },
  improved: { symbol: "↑", word: "improved" },
  inconclusive: { symbol: "?", word: "inconclusive" },
  waived: { symbol: "○", word: "waived" },
  fail: { symbol: "✕", word: "fail" },
  "non-finite": { symbol: "∞", word: "non-finite" },
  missing: { symbol: "∅", word: "missing" },
  vanished: { symbol: "⊘", word: "vanished" },
  incomparable: { symbol: "≠", word: "incomparable" },
  drifted: { symbol: "≈", word: "drifted" },
  error: { symbol: "!", word: "error" },
};
// How bad a verdict is, for "the worst of these": what blocks comes last.
const RANK = ["pass", "improved", "waived", "inconclusive", "drifted", "incomparable", "vanished",
  "missing", "non-finite", "error", "fail"];

const cases = decode(run);
const caseOf = new Map(cases.map((item) => [item.id, item]));
const pairs = pairUp(cases);
const evidence = run.evidence || {};
const figures = evidence.figures || {};

function decode({ cases: columns, texts, blocks }) {
  const blocking = new Set(blocks);
  return columns.model.map((_, index) => {
    const text = (name) => texts[columns[name][index]];
    const found = {
      index, model: text("model"), quantizer: text("quantizer"), probe: text("probe"),
      metric: text("metric"), verdict: text("verdict"), reason: text("reason"), unit: text("unit"),
      direction: text("direction"), command: text("next_command"),
    };
    for (const name of ["metric_version", "samples", "baseline", "observed", "loss", "margin", "low",
      "high", "p_value", "adjusted_p", "standard_error", "samples_needed"]) {
      found[name] = columns[name][index];
    }
    found.id = `${found.model}/${found.quantizer}/${found.probe}.${found.metric}`;
    found.blocks = blocking.has(found.verdict);
    // A metric without a value of FP32's is held to a limit (which may be negative), from which its
    // loss counts: at the limit, as at a margin, the excess is 1.
    found.floor = found.baseline === null && found.loss !== null;
    const ratio = found.loss !== null && found.margin ? found.loss / Math.abs(found.margin) : null;
    found.excess = ratio === null ? null : found.floor ? ratio + 1 : ratio;
    found.severity = ratio !== null ? found.excess : RANK.indexOf(found.verdict) > 2 ? Infinity : -Infinity;
    found.search = `${found.id} ${found.verdict} ${found.unit} ${found.reason}`.toLowerCase();
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
    pair.verdict = RANK.filter((verdict) => pair.counts.has(verdict)).pop();
    const compared = pair.cases.filter((item) => item.excess !== null && item.loss > 0);
    pair.worst = compared.sort((a, b) => b.excess - a.excess)[0] || null;
  }
  return found;
}

/** Count cases by verdict, in the order of the record's verdicts. */
function tally(all) {
  const found = new Map();
  for (const verdict of run.verdicts) {
    const amount = all.filter((item) => item.verdict === verdict).length;
    if (amount) found.set(verdict, amount);
  }
  return found;
}

/** Order by what a reader must see first: what blocks, what is undecided, what is worst in margins. */
function worstFirst(a, b) {
  const urgency = (item) => (item.blocks ? 0 : item.verdict === "inconclusive" ? 1 : 2);
  if (urgency(a) !== urgency(b)) return urgency(a) - urgency(b);
  if (a.severity !== b.severity) return a.severity > b.severity ? -1 : 1;
  return a.index - b.index;
}

function distinct(all, name) {
  return [...new Set(all.map((item) => item[name]))].sort();
}

/** Return a verdict as a small label: symbol, word, colour. */
function verdictLabel(verdict) {
  const { symbol, word } = VERDICTS[verdict];
  return el("span", { class: `verdict v-${verdict}` },
    el("span", { class: "symbol", "aria-hidden": "true" }, symbol), el("span", { class: "word" }, word));
}

/** Return what FP32's and the quantized model's value of a metric are, from the case itself. */
function measured(pair, probe, metric) {
  const found = caseOf.get(`${pair.model}/${pair.quantizer}/${probe}.${metric}`);
  if (!found || found.baseline === null || found.observed === null) return "";
  return `${metric} ${number(found.baseline)} → ${number(found.observed)}`;
}

/** Return a link to a case: opens it here, keeps what else is open, and can be copied as an address. */
function caseLink(item, ...children) {
  return el("a", {
    href: addressOf({ case: item.id }), onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      if (state.case === item.id) revealCase(item);
      else go({ case: item.id });
    },
  }, children);
}
