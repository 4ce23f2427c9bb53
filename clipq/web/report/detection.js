import { el, svg } from "../shared/elements.js";
import { number } from "../shared/format.js";
import { curve, figure, plot } from "../shared/plot.js";
import { measured } from "./record.js";

/** How a score parts inside from outside: its distributions, and the ROC curve. */
export function detection(pair, probe, score, reference, observed) {
  const note = measured(pair, probe, `auroc-${score}`);
  return figure(probe, note ? `${score}; ${note}` : score,
    el("div", { class: "two" },
      distributions(pair, probe, score, reference, observed), roc(pair, probe, score, reference, observed)),
    rocTable(pair, probe, score, reference, observed));
}

/** Density of the score per side; quantized filled, FP32 as a dashed line over it. */
function distributions(pair, probe, score, reference, observed) {
  const sides = [];
  for (const side of ["inside", "outside"]) {
    if (observed) sides.push({ side, name: "quantized", points: density(observed, side) });
    if (reference) sides.push({ side, name: "fp32", points: density(reference, side) });
  }
  const all = sides.flatMap(({ points }) => points);
  const most = Math.max(1e-9, ...all.map(([, value]) => value));
  const chart = plot({
    name: `Distribution of ${score} on ${probe}: inside (in-distribution) against outside, FP32 dashed and ${pair.quantizer} filled`,
    x: { from: Math.min(...all.map(([value]) => value)), to: Math.max(...all.map(([value]) => value)), label: `score ${score}`, ticks: null },
    y: { from: 0, to: 1.06 * most, label: "density", ticks: [0] },
  });
  for (const { side, name, points } of sides) {
    const pixels = points.map(([x, y]) => [chart.x(x), chart.y(y)]);
    if (name === "quantized") {
      const outline = pixels.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
      chart.add(svg("path", { d: `M${outline}Z`, class: `area ${side}` }), curve(pixels, side));
    } else {
      chart.add(curve(pixels, `${side} dashed`));
    }
  }
  return chart.node;
}

/** Return the outline of a histogram as [score, share per unit of score], down to zero at both ends. */
function density(data, side) {
  const [low, high] = data.range, width = (high - low) / data[side].length || 1;
  const total = data[side].reduce((sum, value) => sum + value, 0) || 1;
  const steps = data[side].flatMap((value, index) => {
    const height = value / total / width;
    return [[low + index * width, height], [low + (index + 1) * width, height]];
  });
  return [[low, 0], ...steps, [high, 0]];
}

function roc(pair, probe, score, reference, observed) {
  const chart = plot({
    name: `ROC curve of ${score} on ${probe}, FP32 against ${pair.quantizer}. ${measured(pair, probe, `auroc-${score}`)}`,
    x: { from: 0, to: 1, label: "false positive rate" }, y: { from: 0, to: 1, label: "true positive rate" },
  });
  chart.add(svg("path", { d: `M${chart.x(0)} ${chart.y(0)}L${chart.x(1)} ${chart.y(1)}`, class: "guide" }));
  for (const [name, data] of [["fp32 dashed", reference], ["quantized", observed]]) {
    if (data) chart.add(curve(data.fpr.map((rate, index) => [chart.x(rate), chart.y(data.tpr[index])]), name));
  }
  return chart.node;
}

function rocTable(pair, probe, score, reference, observed) {
  const series = [["FP32", reference], [pair.quantizer, observed]].filter(([, data]) => data);
  const columns = [{ title: "Point", number: true }, ...series.flatMap(([title]) =>
    ["false positives", "true positives"].map((name) => ({ title: `${title} ${name}`, number: true })))];
  const rows = series[0][1].fpr.map((_, index) => [String(index + 1),
    ...series.flatMap(([, data]) => [number(data.fpr[index]), number(data.tpr[index])])]);
  return { caption: `ROC of ${score} on ${probe}`, columns, rows };
}
