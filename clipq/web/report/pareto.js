// What a candidate costs against what it keeps: one point per model and quantizer or artifact.
import { line } from "../shared/axes.js";
import { choice } from "../shared/controls.js";
import { el, legend, section, svg } from "../shared/elements.js";
import { better, number, percent } from "../shared/format.js";
import { footprint, placeNames } from "../shared/labels.js";
import { frontOf, shape, staircase, standApart } from "../shared/marks.js";
import { curve, figure, plot } from "../shared/plot.js";
import { verdictLabel } from "../shared/verdicts.js";
import { cases, distinct, evidence, pairs, run } from "./record.js";

const COSTS = {
  weight_bits: { title: "bits per quantized weight", show: number },
  bytes: { title: "size of the model (MB)", factor: 1e-6, show: number },
  milliseconds: { title: "measured latency (ms)", show: number },
  ratio_to_fp32: { title: "measured latency (× FP32)", show: number },
};

export function paretoSection() {
  const known = { ...evidence.quantizers, ...evidence.artifacts };
  const having = (name) => [...pairs.keys()].filter((key) => known[key] && typeof known[key][name] === "number").length;
  // First what most have: artifacts have a size, and no bits per weight.
  const costs = Object.keys(COSTS).filter(having).sort((a, b) => having(b) - having(a));
  const metrics = [...new Set(cases.filter((item) => item.loss !== null).map((item) => item.key))].sort();
  if (!costs.length || !metrics.length) return null;
  const models = distinct(cases, "model");
  const view = { cost: costs[0], metric: preferred(metrics) || metrics[0], value: "loss", model: models[0] };
  const body = el("div", { class: "charts broad" });
  const draw = () => body.replaceChildren(paretoChart(view, known));
  const set = (name) => (value) => { view[name] = value; draw(); };
  draw();
  return section("pareto", "Cost against reliability",
    el("div", { class: "row filters" },
      models.length > 1 ? choice("model", [["", "all"], ...models.map((model) => [model, model])], view.model, set("model")) : null,
      choice("cost", costs.map((name) => [name, COSTS[name].title]), view.cost, set("cost")),
      choice("metric", metrics.map((name) => [name, name]), view.metric, set("metric")),
      choice("shown as", [["loss", "loss against FP32"], ["observed", "observed value"]], view.value, set("value"))),
    body);
}

function paretoChart(view, known) {
  const { factor = 1, title } = COSTS[view.cost];
  const points = cases.filter((item) => item.key === view.metric
    && (!view.model || item.model === view.model)).map((item) => {
    const found = known[`${item.model}/${item.quantizer}`] || {};
    const cost = found[view.cost];
    return { item, x: typeof cost === "number" ? cost * factor : null, y: item[view.value], ...ends(item, view.value) };
  }).filter((point) => point.x !== null && point.y !== null);
  if (!points.length) return el("p", { class: "quiet" }, "No quantizer has both this cost and this metric.");
  const { unit, direction } = points[0].item;
  const wish = view.value === "loss" ? "lower" : direction;
  const bad = (point) => (wish === "higher" ? -point.y : wish === "zero" ? Math.abs(point.y) : point.y);
  const front = frontOf(points, bad);
  const xs = points.map((point) => point.x);
  const ys = points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]);
  if (view.value === "loss") ys.push(0);
  const padX = (Math.max(...xs) - Math.min(...xs)) * 0.12 || Math.max(...xs) * 0.1;
  const padY = (Math.max(...ys) - Math.min(...ys)) * 0.1 || 0.01;
  const width = Math.max(360, Math.min(1180, document.getElementById("report").clientWidth - 34));
  const height = Math.round(Math.min(460, 240 + width / 5));
  const chart = plot({
    name: `${view.metric} (${view.value}) against ${title}; on the Pareto front: ${front.map((point) => point.item.quantizer).join(", ")}`,
    width, height, left: 62,
    x: { from: Math.min(...xs) - padX * 0.5, to: Math.max(...xs) + padX, label: `${title}, lower is better` },
    y: { from: Math.min(...ys) - padY, to: Math.max(...ys) + padY, label: `${view.value === "loss" ? "loss" : view.metric}${unit ? ` (${unit})` : ""}${better(wish) ? `, ${better(wish)}` : ""}` },
  });
  if (view.value === "loss") chart.add(line(chart.x(Math.min(...xs) - padX * 0.5), chart.y(0), chart.x(Math.max(...xs) + padX), chart.y(0), "guide"));
  chart.add(curve(staircase(front, chart), "front"));
  const shapes = distinct(points.map((point) => point.item), "model");
  const drawn = [...points].sort((a, b) => Number(front.includes(b)) - Number(front.includes(a))).map((point) => ({
    point, on: front.includes(point), x: chart.x(point.x), y: chart.y(point.y), text: point.item.quantizer,
    top: chart.y(point.high ?? point.y), bottom: chart.y(point.low ?? point.y),
  }));
  standApart(drawn);
  for (const { point, x, top, bottom } of drawn) {
    if (point.low === null) continue;
    chart.add([line(x, top, x, bottom, "bar"), line(x - 4, top, x + 4, top, "bar"), line(x - 4, bottom, x + 4, bottom, "bar")]);
  }
  const named = drawn.filter(({ on }) => on || view.model);
  const covered = drawn.flatMap(footprint);
  placeNames(named, covered, { left: 64, right: width - 4, top: 4, bottom: height - 42 }).forEach((place, index) => {
    if (!place) return;
    if (place.from) chart.add(line(place.from.x, place.from.y, place.x, place.y - 4, "leader"));
    chart.add(svg("text", { x: place.x, y: place.y, "text-anchor": place.anchor, class: named[index].on ? "name on" : "name" }, named[index].text));
  });
  for (const { point, on, x, y } of drawn) {
    const text = `${point.item.model} / ${point.item.quantizer}: ${number(point.x)}, ${number(point.y)}${interval(point)} ${unit} (${point.item.standing})`;
    chart.add(shape(shapes.indexOf(point.item.model), x, y, on, text));
  }
  const rows = [...points].sort((a, b) => a.x - b.x || bad(a) - bad(b)).map((point) => [
    `${point.item.model} / ${point.item.quantizer}`, number(point.x), number(point.y), interval(point).trim() || "–", verdictLabel(point.item.standing), front.includes(point) ? "yes" : "no"]);
  const key = shapes.length > 1 ? legend(shapes.map((model, index) => [shape(index, 13, 7, true, model), model]), "plot") : null;
  const bars = points.some((point) => point.low !== null)
    ? `; bars are the ${percent(1 - (run.statistics.alpha ?? 0.05)).replace(".0", "")} interval of the ${view.value === "loss" ? "loss" : "loss, from FP32's value"}` : "";
  return figure(view.metric, `filled points and the line are the Pareto front: nothing is both cheaper and better${bars}; marks of one cost stand side by side`, [key, chart.node], {
    caption: `${view.metric} against ${title}`,
    columns: [{ title: "Model / quantizer" }, { title, number: true }, { title: view.value, number: true }, { title: "Interval", number: true }, { title: "Verdict" }, { title: "On the front" }],
    rows,
  });
}

/** Return the metric to begin with: accuracy on the in-distribution probe, where there is one. */
function preferred(metrics) {
  const role = (name) => ((evidence.probes || {})[name.slice(0, name.lastIndexOf("."))] || {}).role;
  const accuracy = metrics.filter((name) => name.endsWith(".top1"));
  return accuracy.find((name) => role(name) === "in-distribution") || accuracy[0];
}

/** Return the ends of a point's interval, both null where there is none. */
function ends({ low, high, loss, baseline, observed, direction }, value) {
  const none = { low: null, high: null };
  if (low === null || high === null) return none;
  if (value === "loss") return { low, high };
  // Only where the loss is the plain difference does its interval say where the value may lie.
  const sign = direction === "higher" ? -1 : 1;
  const plain = baseline !== null && observed !== null && loss !== null
    && Math.abs(baseline + sign * loss - observed) <= 1e-4 * Math.max(1e-6, Math.abs(observed), Math.abs(baseline));
  if (!plain) return none;
  return sign > 0 ? { low: baseline + low, high: baseline + high } : { low: baseline - high, high: baseline - low };
}

function interval({ low, high }) {
  return low === null ? "" : ` [${number(low)}, ${number(high)}]`;
}
