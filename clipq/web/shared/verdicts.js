// Verdicts, and the cases that have them. Every verdict has a symbol and a word besides its colour.
//
// On both pages a case has: `at` (its place in the data), `model`, `quantizer`, `key` ("probe.metric"),
// `verdict`, `standing`, `blocks`, `loss`, `baseline`, `margin`, and what `judged` adds. The standing is
// the verdict; where a page tells them apart, `inconclusive` is one of the two that `UNDECIDED` says.
import { el } from "./elements.js";

export const VERDICTS = new Map([
  ["pass", "✓"], ["improved", "↑"], ["inconclusive", "?"], ["under-powered", "?"], ["beyond-margin", "◇"],
  ["suspect", "◆"], ["waived", "○"], ["fail", "✕"],
  ["non-finite", "∞"], ["missing", "∅"], ["vanished", "⊘"], ["incomparable", "≠"], ["drifted", "≈"],
  ["error", "!"],
]);
// How bad a verdict is, for "the worst of these": what blocks comes last.
export const RANK = ["pass", "improved", "waived", "inconclusive", "under-powered", "beyond-margin", "suspect",
  "drifted", "incomparable", "vanished", "missing", "non-finite", "error", "fail"];
export const UNDECIDED = ["under-powered", "beyond-margin"];

/**
 * Say which of the two an inconclusive case is: does the observed loss exceed the margin?
 * @param {any} item a case
 */
export function standingOf({ verdict, loss, margin, baseline }) {
  if (verdict !== "inconclusive") return verdict;
  const bound = baseline === null ? 0 : margin; // a loss against a limit counts from there
  return loss !== null && margin !== null && loss > bound ? "beyond-margin" : "under-powered";
}

/** Give a case its `id`, `floor`, `excess` and `severity`; return it. */
export function judged(item) {
  item.id = `${item.model}/${item.quantizer}/${item.key}`;
  // A metric without a value of FP32's is held to a limit (which may be negative), from which its
  // loss counts: at the limit, as at a margin, the excess is 1.
  item.floor = item.baseline === null && item.loss !== null;
  item.excess = inMargins(item, item.loss);
  item.severity = item.excess ?? (RANK.indexOf(item.verdict) > RANK.indexOf("waived") ? Infinity : -Infinity);
  return item;
}

/** Return a loss in units of the case's margin: 0 is FP32's own value, 1 the margin; null for none. */
export function inMargins(item, loss) {
  if (loss === null || !item.margin) return null;
  return loss / Math.abs(item.margin) + (item.floor ? 1 : 0);
}

/** Order by what a reader must see first: what blocks, what is undecided, what is worst in margins. */
export function worstFirst(a, b) {
  const unsure = new Set(["suspect", "inconclusive"]);
  const urgency = (item) => (item.blocks ? 0 : unsure.has(item.verdict) ? 1 : 2);
  if (urgency(a) !== urgency(b)) return urgency(a) - urgency(b);
  if (a.severity !== b.severity) return a.severity > b.severity ? -1 : 1;
  return a.at - b.at;
}

/** Count cases by standing, in the order of the verdicts. */
export function tally(items) {
  const found = new Map([...VERDICTS.keys()].map((verdict) => [verdict, 0]));
  for (const { standing } of items) if (found.has(standing)) found.set(standing, found.get(standing) + 1);
  return new Map([...found].filter(([, amount]) => amount));
}

/** Return counts in words: "20 pass, 1 fail". */
export function countText(counts) {
  return [...counts].map(([verdict, amount]) => `${amount} ${verdict}`).join(", ");
}

export function worstOf(counts) {
  return RANK.filter((verdict) => counts.has(verdict)).pop() || "";
}

/** Return a small label: symbol, word, and the colours of a verdict. */
export function badge(verdict, symbol, word) {
  return el("span", { class: `verdict v-${verdict}` },
    el("span", { class: "symbol", "aria-hidden": "true" }, symbol), el("span", { class: "word" }, word));
}

export function verdictLabel(verdict) {
  return verdict ? badge(verdict, VERDICTS.get(verdict), verdict) : el("span", { class: "quiet" }, "not run");
}

/** Return the share of each verdict as one bar. */
export function shares(counts) {
  return el("span", { class: "shares", "aria-hidden": "true" }, [...counts].map(([verdict, amount]) => {
    const part = el("span", { class: `v-${verdict}` });
    part.style.flexGrow = amount;
    return part;
  }));
}

/** Say what the standings that are not decided mean; only those that `counts` holds. */
export function undecidedKey(counts) {
  const meanings = [
    ["suspect", "loses more than the margin, probably: a warning of failure"],
    ["beyond-margin", "loses more than the margin, but it may be chance"],
    ["under-powered", "loses less, but these samples cannot show it"],
  ].filter(([standing]) => counts.has(standing));
  if (!meanings.length) return null;
  return el("ul", { class: "legend", "aria-label": "What is not decided" },
    meanings.map(([standing, text]) => el("li", {}, verdictLabel(standing), ` ${text}`)));
}

/** Return a case's name with the part that tells it apart first. */
export function caseName(item) {
  return [el("b", {}, item.key), " ", el("span", { class: "quiet" }, `${item.model} / ${item.quantizer}`)];
}
