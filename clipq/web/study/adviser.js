// Which quantizer for my model under these margins? Everything is computed here, anew with each change.
import { line } from "../shared/axes.js";
import { choice } from "../shared/controls.js";
import { el, notice, section, svg } from "../shared/elements.js";
import { commandList } from "../shared/commands.js";
import { better, count, number, percent, times } from "../shared/format.js";
import { listing } from "../shared/listing.js";
import { badge } from "../shared/verdicts.js";
import { advise, errorOf } from "./advice.js";
import { cellOf, columnTitle, configurations, signOf, study, studyColumn, studyModels } from "./measured.js";
import { scatter } from "./scatter.js";
import { showNumber } from "./study-table.js";
import { COSTS_OF } from "./pictures.js";
import { look, onView, view } from "./view.js";

const SURE = 0.975;
const LIKELY_FRONT = 0.05;
const STANDINGS = [["keeps", "pass", "✓", "surely keeps all"], ["open", "inconclusive", "?", "not decided"], ["breaks", "fail", "✕", "surely breaks one"]];
const CHANCE = /^(ece|ts-ece|ace|mce|smooth-ece|classwise-ece|nll|brier|confidence-gap)$/;

export function adviserSection() {
  const models = studyModels.map((model) => model.name).filter((name) => Object.keys(defaultsOf(name)).length);
  if (!models.length) return null;
  const chosenModel = () => (models.includes(view.for) ? view.for : models[0]);
  const controls = el("div", { class: "row filters" });
  const limits = el("div", { class: "limits", role: "group", "aria-label": "Margins" });
  const answer = el("div", { class: "advice" });
  const drawControls = () => {
    const model = chosenModel(), costs = costsOf(model), cost = costs.includes(view.pays) ? view.pays : costs[0];
    const most = el("input", {
      type: "number", min: "0", step: "any", id: "most", "aria-label": `at most, ${cost ? COSTS_OF[cost][0] : "cost"}`,
      placeholder: "no limit", oninput: () => look({ most: most.value }),
    });
    most.value = view.most;
    controls.replaceChildren(
      choice("model", models.map((name) => [name, name]), model, (name) => look({ for: name, margins: "" })),
      ...(costs.length ? [choice("cost", costs.map((name) => [name, COSTS_OF[name][0]]), cost, (name) => look({ pays: name, most: "" })),
        el("label", { class: "choice" }, el("span", { "aria-hidden": "true" }, "at most"), most)] : []));
    limits.replaceChildren(...Object.keys(defaultsOf(model)).map((name) => marginField(model, name)),
      el("button", { type: "button", class: "small", onclick: () => { look({ margins: "" }); drawControls(); } }, "The project's margins"));
  };
  const drawAnswer = () => answer.replaceChildren(...advice(chosenModel()));
  onView((before) => {
    if (["for", "pays"].some((key) => before[key] !== view[key])) drawControls();
    if (["for", "pays", "most", "margins"].some((key) => before[key] !== view[key])) drawAnswer();
  });
  drawControls();
  drawAnswer();
  return section("adviser", "Which quantizer under these margins?",
    el("p", { class: "quiet" }, "A margin is how much worse than FP32 is still acceptable. The answer is computed from each change and its standard error; an empty field asks nothing of that metric."),
    controls, limits, answer);
}

/** Return the project's margins of the columns that are compared. */
function defaultsOf(model) {
  const said = (study.adviser[model] || {}).margins || {};
  return Object.fromEntries(Object.entries(said).filter(([name, margin]) => studyColumn.has(name) && signOf(studyColumn.get(name)) && margin > 0));
}

function costsOf(model) {
  return Object.keys(COSTS_OF).filter((name) => configurations.some((row) => row.model === model && typeof row.cost[name] === "number"));
}

/** Return the margins that are asked for: the project's, but for those that the address changes. */
function marginsOf(model) {
  const found = { ...defaultsOf(model) };
  for (const part of view.margins.split(" ").filter(Boolean)) {
    const at = part.lastIndexOf("="), name = part.slice(0, at), margin = Number(part.slice(at + 1));
    if (!(name in found)) continue;
    if (margin > 0 && Number.isFinite(margin)) found[name] = margin;
    else delete found[name];
  }
  return found;
}

/** Return a field and a slider of one margin. */
function marginField(model, name) {
  const project = defaultsOf(model)[name], now = marginsOf(model)[name];
  const set = (margin) => {
    const others = view.margins.split(" ").filter((part) => part && part.slice(0, part.lastIndexOf("=")) !== name);
    look({ margins: [...others, ...(margin === project ? [] : [`${name}=${margin > 0 ? margin : "none"}`])].join(" ") });
  };
  const title = columnTitle(name);
  const field = el("input", { type: "number", min: "0", step: "any", "aria-label": `margin of ${title}`, placeholder: "any loss", oninput: () => {
    set(Number(field.value));
    slider.value = String(Math.log2((Number(field.value) || project) / project));
  } });
  // In powers of two around the project's margin: from an eighth to eight times.
  const slider = el("input", { type: "range", min: "-3", max: "3", step: "0.25", "aria-label": `margin of ${title}, in steps around the project's`, oninput: () => {
    const margin = Number((project * 2 ** Number(slider.value)).toPrecision(3));
    field.value = String(margin);
    set(margin);
  } });
  field.value = now === undefined ? "" : String(now);
  slider.value = String(Math.log2((now ?? project) / project));
  return el("div", { class: "margin" }, el("span", {}, title), field, slider);
}

/** Return the loss of a configuration: positive is worse; null where it, or its error, is not known. */
function lossOf(row, name) {
  const cell = cellOf(row, name);
  if (!cell || !cell.compared || cell.low === null) return null;
  return { loss: -signOf(studyColumn.get(name)) * cell.change, error: errorOf(cell.low, cell.high) };
}

function advice(model) {
  const margins = marginsOf(model), names = Object.keys(margins);
  const costs = costsOf(model), cost = costs.includes(view.pays) ? view.pays : costs[0];
  if (!names.length) return [notice("", "No margin is asked for: give at least one.")];
  const [costTitle, factor] = COSTS_OF[cost] || ["cost", 1];
  // Matched noise is a control, no quantizer.
  const options = configurations.filter((row) => row.model === model && row.kind !== "noise").map((row) => ({
    id: row.id, row, cost: typeof row.cost[cost] === "number" ? row.cost[cost] * factor : null,
    losses: Object.fromEntries(names.map((name) => [name, lossOf(row, name)])),
  }));
  const most = view.most === "" ? Infinity : Number(view.most);
  const affordable = options.filter((option) => most === Infinity || (option.cost !== null && option.cost <= most));
  const judged = advise(affordable, margins).map((item) => ({ ...item, ...standing(item), row: item.option["row"] }));
  const known = judged.filter((item) => item.worst !== null);
  if (!known.length) return [notice("warn", affordable.length ? `No configuration has all of these metrics: ${names.map(columnTitle).join(", ")}.` : "No configuration costs that little.")];
  const keeping = known.filter((item) => item.kept === "keeps").sort(cheapest);
  const front = known.filter((item) => item.front !== null && item.front >= LIKELY_FRONT);
  const shown = [...new Set([...keeping.slice(0, 1), ...front])].sort(cheapest);
  return [
    keeping.length ? recommendation(keeping, known, costTitle) : nothingKeeps(known, options, margins, most),
    frontFigure(known, costTitle, names, cost),
    el("h3", {}, "The Pareto set, and how sure it is"),
    el("p", { class: "quiet" }, `All that are cheapest for what they keep with a probability of at least 5 %, among ${count(known.length, "configuration")}. `
      + "The probability of keeping all margins is a lower bound that holds however metrics go together; that of the front counts metrics and configurations as independent."),
    listing({ caption: "The Pareto set", columns: adviceColumns(costTitle), items: shown, onSort: () => {} }),
    judged.length > known.length ? el("p", { class: "quiet" }, `${count(judged.length - known.length, "configuration")} without one of these metrics, or without an interval, left out.`) : null,
  ].filter(Boolean);
}

/** Say whether every margin is surely kept, one is surely broken, or neither. */
function standing({ keeps, worst }) {
  const chances = Object.values(keeps);
  if (worst === null) return { kept: "" };
  if (chances.every((chance) => chance >= SURE)) return { kept: "keeps" };
  return { kept: chances.some((chance) => chance <= 1 - SURE) ? "breaks" : "open" };
}

function cheapest(a, b) {
  return (a.option.cost ?? Infinity) - (b.option.cost ?? Infinity) || a.worst - b.worst;
}

function recommendation(keeping, known, costTitle) {
  const [first] = keeping;
  const best = [...keeping].sort((a, b) => a.worst - b.worst)[0];
  const said = [el("b", {}, "Take "), rowButton(first), `: the cheapest that surely keeps every margin (${costTitle} ${number(first.option.cost)}; worst loss ${times(first.worst)} the margin, of ${columnTitle(first.limit)}). `,
    `${keeping.length} of ${known.length} surely keep all.`];
  if (best !== first) said.push(" The one that keeps most: ", rowButton(best), ` (${costTitle} ${number(best.option.cost)}; ${times(best.worst)}).`);
  return notice("good", said);
}

/** Say what is nearest where nothing surely keeps the margins, and what can be done. */
function nothingKeeps(known, options, margins, most) {
  const nearest = [...known].sort((a, b) => reachOf(a, margins) - reachOf(b, margins))[0];
  const open = Object.entries(nearest.keeps).filter(([, chance]) => chance < SURE && chance > 1 - SURE).map(([name]) => name);
  const broken = Object.entries(nearest.keeps).filter(([, chance]) => chance <= 1 - SURE).map(([name]) => name);
  const factor = reachOf(nearest, margins);
  const steps = [];
  if (Number.isFinite(most)) {
    const dearer = advise(options, margins).filter((item) => item.worst !== null && standing(item).kept === "keeps").sort(cheapest)[0];
    if (dearer) steps.push(["Allow more: ", rowButton({ ...dearer, row: dearer.option["row"] }), ` costs ${number(dearer.option.cost)} and surely keeps every margin.`]);
  }
  for (const name of open) {
    const { loss, error } = nearest.option.losses[name];
    const room = margins[name] - loss;
    steps.push(room > 0
      ? [`${columnTitle(name)} is not decided: the loss lies within the margin. About ${number(Number((((1.96 * error) / room) ** 2).toPrecision(2)))} times the samples (or more seeds, where seeds differ) would show it.`]
      : [`${columnTitle(name)} is not decided, and the loss lies at or beyond the margin: more samples are no way out.`]);
  }
  for (const name of broken) steps.push([`${columnTitle(name)} is surely beyond its margin: ${times(nearest.option.losses[name].loss / margins[name])} of it.`]);
  if ([...open, ...broken].every((name) => CHANCE.test(studyColumn.get(name).metric || name))) {
    steps.push(["Only calibration is in the way: tune the logit scale (add +logit-scale to the quantizer)."]);
  }
  if (broken.length) steps.push(["Keep the layers in float that cause it (the command below finds them), take more bits, or train (QAT)."]);
  const [name] = [...broken, ...open];
  return el("div", { class: "notice warn none" },
    el("p", {}, el("b", {}, "Nothing surely keeps all of these margins. "), "Nearest is ", rowButton(nearest), Number.isFinite(factor) ? `, which would with margins ${times(factor)} as wide.` : "."),
    el("ul", {}, steps.map((step) => el("li", {}, step))),
    broken.length && (studyColumn.get(name).probes || []).length === 1
      ? commandList([`clipq blame '${nearest.row.model}/${seeded(nearest.row)}/${studyColumn.get(name).probes[0]}.${studyColumn.get(name).metric}'`]) : null);
}

/** Return a configuration's text with its first seed, where the seed is part of the quantizer. */
function seeded(row) {
  if (row.seeds.length < 2) return row.text;
  const [body, ...towers] = row.text.split("@");
  return [`${body},seed=${row.seeds[0]}`, ...towers].join("@");
}

/** Return how wide, in margins, all margins would have to be for this one to surely keep them. */
function reachOf({ option }, margins) {
  return Math.max(...Object.keys(margins).map((name) => (option.losses[name].loss + 1.96 * option.losses[name].error) / margins[name]));
}

function rowButton(item) {
  return el("button", { type: "button", class: "link", onclick: () => showNumber(item.row, item.limit) }, el("code", {}, item.row.text));
}

function standingLabel(kept) {
  const [, verdict, symbol, word] = STANDINGS.find(([name]) => name === kept);
  return badge(verdict, symbol, word);
}

function adviceColumns(costTitle) {
  return [
    { title: "Configuration", names: true, key: "text", by: (item) => item.row.text, cell: rowButton },
    { title: costTitle, number: true, key: "cost", by: (item) => item.option.cost, cell: (item) => number(item.option.cost) },
    { title: "Margins", key: "kept", by: (item) => STANDINGS.findIndex(([name]) => name === item.kept), cell: (item) => standingLabel(item.kept) },
    { title: "Keeps all, at least", number: true, key: "all", first: -1, by: (item) => item.all, cell: (item) => percent(item.all) },
    { title: "Worst loss / margin", number: true, key: "worst", by: (item) => item.worst, cell: (item) => times(item.worst) },
    { title: "of", key: "limit", by: (item) => item.limit, cell: (item) => `${columnTitle(item.limit)}, kept with ${percent(item.keeps[item.limit])}` },
    { title: "On the front", number: true, key: "front", first: -1, by: (item) => item.front, cell: (item) => percent(item.front) },
  ];
}

/** Cost against the worst loss in margins; below the dashed line every margin is kept by the mean. */
function frontFigure(known, costTitle, names, cost) {
  const priced = known.filter((item) => item.option.cost !== null);
  if (!cost || !priced.length) return null;
  // What collapsed would press everything else together: it is drawn at the upper edge.
  const edge = Math.max(2.5, ...priced.filter((item) => item.front >= LIKELY_FRONT).map((item) => Math.min(item.worst, 20))) * 1.1;
  const points = priced.map((item) => {
    const { loss, error } = item.option.losses[item.limit], margin = item.worst ? loss / item.worst : 1;
    const at = (value) => Math.min(edge, value);
    return {
      row: item.row, front: item.front, x: item.option.cost, y: at(item.worst), yLow: at(item.worst - (1.96 * error) / margin), yHigh: at(item.worst + (1.96 * error) / margin),
      say: () => `${costTitle} ${number(item.option.cost)}; worst loss ${times(item.worst)} the margin, of ${columnTitle(item.limit)}; keeps all with at least ${percent(item.all)}; on the front with ${percent(item.front)}`,
    };
  });
  return scatter({
    title: `Worst loss in margins against ${costTitle}`, name: names[0], points, wide: true, apart: true,
    named: (point) => point.front >= LIKELY_FRONT,
    note: `below the dashed line every margin is kept by the mean; bars are the 95 % interval of the metric that is worst; what loses more than ${times(edge)} stands at the upper edge`,
    x: { label: `${costTitle}, lower is better`, zero: false }, y: { label: `worst loss / margin, ${better("lower")}` },
    more: (chart) => [svg("rect", { class: "beyond", x: chart.x(chart.x.from), y: chart.y(chart.y.to), width: chart.x(chart.x.to) - chart.x(chart.x.from), height: Math.max(0, chart.y(1) - chart.y(chart.y.to)) }),
      line(chart.x(chart.x.from), chart.y(1), chart.x(chart.x.to), chart.y(1), "limit")],
  });
}
