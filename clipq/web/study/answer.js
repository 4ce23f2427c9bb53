// The adviser's answer: what to take, the Pareto set with how sure it is, or what to do if nothing fits.
import { line } from "../shared/axes.js";
import { commandList, shellWord } from "../shared/commands.js";
import { el, notice, svg } from "../shared/elements.js";
import { count, number, percent, times } from "../shared/format.js";
import { listing } from "../shared/listing.js";
import { badge } from "../shared/verdicts.js";
import { advise, drawLosses, halfOf, jointFront } from "./advice.js";
import { cellOf, columnTitle, configurations, costOf, costShown, costTitle, signOf, studyColumn, studyModel } from "./measured.js";
import { scatter } from "./scatter.js";
import { showNumber } from "./study-table.js";
import { view } from "./view.js";

const ON_FRONT = 0.05; // probability from which a configuration is in the Pareto set that is shown
const ANSWERS_OF = new Map([["surely", ["pass", "✓"]], ["probably", ["inconclusive", "?"]], ["hardly", ["suspect", "◆"]], ["surely not", ["fail", "✕"]]]);
const ORDER = [...ANSWERS_OF.keys()];
const OF_SCALE = /^(ece|ace|mce|smooth-ece|classwise-ece|nll|brier|confidence-gap)$/;
const drawnOf = { key: "", drawn: null };

/** Return what is said of a model's configurations under margins. */
export function adviceOf(model, asked, cost) {
  const keys = Object.keys(asked), most = view.most === "" ? Infinity : Number(view.most);
  // Matched noise is a control: nothing that could be chosen.
  const rows = configurations.filter((row) => row.model === model && row.kind !== "noise");
  const options = rows.map((row) => optionOf(row, keys, asked, cost)).filter(Boolean);
  if (!options.length) return [notice("warn", `No configuration has all of these metrics with an interval: ${keys.map(columnTitle).join(", ")}.`)];
  const judged = advise(options, drawn(model, keys, options)).map((item) => ({ ...item, row: item.option["row"], key: keys[item.limit] }));
  const affordable = judged.filter((item) => most === Infinity || (item.option.cost !== null && item.option.cost <= most));
  if (!affordable.length) return [notice("warn", "No configuration costs that little.")];
  const joint = view.front === "all" ? jointFront(options, drawn(model, keys, options)) : null;
  affordable.forEach((item) => { item.on = frontOfItem(item, joint && joint[options.indexOf(item.option)], keys); });
  const keeping = affordable.filter((item) => item.answer === "surely").sort(cheapest);
  const shown = affordable.filter((item) => item === keeping[0] || item.on === null || item.on >= ON_FRONT).sort(cheapest);
  const unknown = rows.length - options.length;
  return [
    keeping.length ? recommendation(keeping, affordable, cost) : nothingFits(affordable, judged, keys, cost),
    worstFigure(affordable, cost),
    el("h3", {}, "The Pareto set, and how sure it is"),
    el("p", { class: "quiet" }, `Of ${count(affordable.length, "configuration")}, those that nothing beats with a probability of at least 5 %, and the cheapest that surely keeps every margin. `
      + `Probabilities are shares of ${number(drawn(model, keys, options).draws)} draws of all losses with their errors over samples and seeds; errors of two configurations are drawn apart, so that probabilities are nearer to one half than they need be.`),
    listing({ caption: "The Pareto set", columns: answerColumns(cost, keys), items: shown, onSort: () => {}, rows: 25 }),
    unknown ? el("p", { class: "quiet" }, `${count(unknown, "configuration")} without one of these metrics, or without its interval, left out.`) : null,
  ].filter(Boolean);
}

/** Return a configuration with its losses and margins; null where a loss is not known. */
function optionOf(row, keys, asked, cost) {
  const cells = keys.map((key) => cellOf(row, key));
  if (cells.some((cell) => !cell || !cell.compared || cell.sampling === null)) return null;
  const price = cost ? costOf(row, cost) : null;
  return {
    row, margins: keys.map((key) => asked[key]), cost: price === null ? null : costShown(cost, price),
    losses: cells.map((cell, at) => ({ value: -signOf(studyColumn.get(keys[at])) * cell.change, sampling: cell.sampling, drawn: cell.drawn, seeds: cell.seeds })),
  };
}

/** Return draws of these losses; the last ones are kept, for margins change more often than metrics. */
function drawn(model, keys, options) {
  const key = [model, ...keys, options.length].join(" ");
  if (drawnOf.key !== key) Object.assign(drawnOf, { key, drawn: drawLosses(options.map((option) => option.losses)) });
  return drawnOf.drawn;
}

function frontOfItem(item, joint, keys) {
  if (view.front === "all") return joint;
  return keys.includes(view.front) ? item.fronts && item.fronts[keys.indexOf(view.front)] : item.front;
}

function cheapest(a, b) {
  return (a.option.cost ?? Infinity) - (b.option.cost ?? Infinity) || a.worst - b.worst;
}

function costText(item, cost) {
  return cost ? `${costTitle(cost)} ${priceText(item.option.cost)}; ` : "";
}

function priceText(cost) {
  return cost === null ? "–" : number(Number(cost.toPrecision(3)));
}

function recommendation(keeping, known, cost) {
  const [first] = keeping, best = [...keeping].sort((a, b) => a.worst - b.worst)[0];
  return notice("good", el("b", {}, "Take "), rowButton(first),
    `: the cheapest that surely keeps every margin (${costText(first, cost)}worst loss ${times(first.worst)} the margin, of ${columnTitle(first.key)}). ${keeping.length} of ${known.length} surely keep all.`,
    ...(best === first ? [] : [" The one that keeps most: ", rowButton(best), ` (${costText(best, cost)}${times(best.worst)}).`]));
}

/** Say what is nearest where nothing surely keeps the margins, and what can be done. */
function nothingFits(known, all, keys, cost) {
  const reach = ({ option }) => Math.max(...option.losses.map((loss, at) => (loss.value + halfOf(loss)) / option.margins[at]));
  const nearest = [...known].sort((a, b) => b.meets - a.meets || reach(a) - reach(b))[0], { losses, margins } = nearest.option;
  const dearer = all.filter((item) => item.answer === "surely").sort(cheapest)[0];
  const steps = dearer ? [["Allow more: ", rowButton(dearer), ` surely keeps every margin (${costText(dearer, cost)}worst loss ${times(dearer.worst)}).`]] : [];
  for (const at of nearest.open) {
    const title = columnTitle(keys[at]), room = margins[at] - losses[at].value;
    const factor = room > 0 ? Number(((halfOf(losses[at]) / room) ** 2).toPrecision(2)) : 0;
    steps.push([room > 0 ? `${title} is not decided: the loss lies within the margin. About ${number(factor)} times the samples${losses[at].drawn > 0 ? " and seeds" : ""} would show it.`
      : `${title} is not decided: the loss lies at or beyond the margin, so that more samples are no way out.`]);
  }
  for (const at of nearest.over) steps.push([`${columnTitle(keys[at])} is surely beyond its margin: ${times(losses[at].value / margins[at])} of it.`]);
  const against = [...nearest.over, ...nearest.open];
  if (!nearest.row.text.includes("+logit-scale") && against.every((at) => OF_SCALE.test(studyColumn.get(keys[at]).metric))) steps.push(["Only calibration is in the way: tune the logit scale (add +logit-scale to the quantizer)."]);
  if (nearest.over.length) steps.push(["Keep the layers in float that cause it, take more bits, or train (QAT)."]);
  const command = blameCommand(nearest.row, keys[against[0]]);
  return el("div", { class: "notice warn none" },
    el("p", {}, el("b", {}, "Nothing surely keeps all of these margins. "), "Nearest is ", rowButton(nearest), `: it would with margins ${times(reach(nearest))} as wide.`),
    el("ul", {}, steps.map((step) => el("li", {}, step))),
    command ? [el("p", {}, "Which layers cost most:"), commandList([command])] : null);
}

/** Return the command that finds the layers behind a loss; null where the number is a mean over probes. */
function blameCommand(row, key) {
  const probes = studyModel.get(row.model).probes[key] || [];
  if (probes.length !== 1) return null;
  const [, body, rest] = row.text.replace(/ \(calibration: .*\)$/, "").match(/^(.*?)((?:@[^@]*?)?(?:\+logit-scale)?)$/s);
  // Of calibration samples that were drawn, seeds say which; and 0 is what a text without a seed means.
  const seed = row.calibration ? 0 : row.seeds[0];
  const text = seed ? `${body},seed=${seed}${rest}` : `${body}${rest}`;
  return `clipq blame ${shellWord(`${row.model}/${text}/${probes[0]}.${studyColumn.get(key).metric}`)}`;
}

function rowButton(item) {
  return el("button", { type: "button", class: "link", onclick: () => showNumber(item.row, item.key) }, el("code", {}, item.row.text));
}

function answerColumns(cost, keys) {
  const of = view.front === "all" ? "all metrics" : keys.includes(view.front) ? columnTitle(view.front) : "worst loss";
  return [
    { title: "Configuration", names: true, key: "text", by: (item) => item.row.text, cell: rowButton },
    ...(cost ? [{ title: costTitle(cost), number: true, key: "cost", by: (item) => item.option.cost, cell: (item) => priceText(item.option.cost) }] : []),
    { title: "Keeps all margins", key: "answer", by: (item) => ORDER.indexOf(item.answer), cell: (item) => badge(ANSWERS_OF.get(item.answer)[0], ANSWERS_OF.get(item.answer)[1], item.answer) },
    { title: "Probability", number: true, key: "meets", first: -1, by: (item) => item.meets, cell: (item) => percent(item.meets) },
    { title: "Worst loss / margin", number: true, key: "worst", by: (item) => item.worst, cell: (item) => times(item.worst) },
    { title: "of", key: "limit", by: (item) => item.key, cell: (item) => columnTitle(item.key) },
    { title: `On the front: cost, ${of}`, number: true, key: "on", first: -1, by: (item) => item.on, cell: (item) => percent(item.on) },
  ];
}

/** Cost against the worst loss in margins; below the dashed line every margin is kept by the means. */
function worstFigure(known, cost) {
  const priced = known.filter((item) => item.option.cost !== null);
  if (!priced.length) return null;
  // What collapsed would press everything else together: it stands at the upper edge.
  const edge = Math.max(2.5, ...priced.filter((item) => item.on >= ON_FRONT).map((item) => Math.min(item.worst, 20))) * 1.1;
  const floor = Math.min(-0.2, ...priced.map((item) => item.worst)) - 1, at = (value) => Math.max(floor, Math.min(edge, value));
  const points = priced.map((item) => {
    const half = halfOf(item.option.losses[item.limit]) / item.option.margins[item.limit];
    return {
      row: item.row, key: item.key, on: item.on, x: item.option.cost, y: at(item.worst), yLow: at(item.worst - half), yHigh: at(item.worst + half),
      say: () => `${costTitle(cost)} ${priceText(item.option.cost)}; worst loss ${times(item.worst)} the margin, of ${columnTitle(item.key)}; ${item.answer} keeps all (${percent(item.meets)}); on the front with ${percent(item.on)}`,
    };
  });
  const beyond = priced.filter((item) => item.worst > edge).length;
  return scatter({
    title: `Worst loss in margins against ${costTitle(cost)}`, name: points[0].key, points, wide: true, apart: true, whole: true,
    named: (point) => point.on >= ON_FRONT && point.y < edge,
    note: `below the dashed line every margin is kept by the means; bars are the 95 % interval of the metric that is worst${beyond ? `; ${beyond} that lose more than ${times(edge)} stand at the upper edge` : ""}`,
    x: { label: costTitle(cost), zero: false }, y: { label: "worst loss / margin, lower is better" },
    more: (chart) => [svg("rect", { class: "beyond", x: chart.x(chart.x.from), y: chart.y(chart.y.to), width: chart.x(chart.x.to) - chart.x(chart.x.from), height: Math.max(0, chart.y(1) - chart.y(chart.y.to)) }),
      line(chart.x(chart.x.from), chart.y(1), chart.x(chart.x.to), chart.y(1), "limit")],
  });
}
