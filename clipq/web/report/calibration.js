import { ticks } from "../shared/axes.js";
import { svg } from "../shared/elements.js";
import { count, number } from "../shared/format.js";
import { curve, figure, mark, plot } from "../shared/plot.js";
import { measured } from "./record.js";

/** Reliability diagram: accuracy over confidence, FP32 and quantized, with how many samples each bin has. */
export function reliability(pair, probe, reference, observed) {
  const series = [["fp32", "FP32", reference], ["quantized", pair.quantizer, observed]].filter(([, , data]) => data);
  const note = measured(pair, probe, "ece");
  const chart = plot({
    name: `Reliability diagram of ${probe}: accuracy over confidence, FP32 against ${pair.quantizer}. ${note}`,
    height: 250, x: { from: 0, to: 1, label: "", format: () => "" }, y: { from: 0, to: 1, label: "accuracy" }, bottom: 8,
  });
  chart.add(svg("path", { d: `M${chart.x(0)} ${chart.y(0)}L${chart.x(1)} ${chart.y(1)}`, class: "guide" }));
  for (const [name, title, data] of series) {
    const filled = bins(data);
    chart.add(curve(filled.map((bin) => [chart.x(bin.confidence), chart.y(bin.accuracy)]), name),
      filled.map((bin) => mark(chart.x(bin.confidence), chart.y(bin.accuracy), name,
        `${title}: ${count(bin.samples, "sample")}, confidence ${number(bin.confidence)}, accuracy ${number(bin.accuracy)}`)));
  }
  return figure(probe, note, [chart.node, binCounts(probe, series)], binTable(probe, series));
}

function bins(data) {
  return data.samples.map((samples, index) => ({
    index, samples, confidence: data.confidence[index], accuracy: data.accuracy[index],
  })).filter((bin) => bin.confidence !== null && bin.accuracy !== null);
}

/** How many samples each bin has: FP32 an outline, quantized filled. */
function binCounts(probe, series) {
  const most = Math.max(1, ...series.flatMap(([, , data]) => data.samples));
  const chart = plot({
    name: `Samples per confidence bin of ${probe}`, height: 104, bottom: 40, top: 6,
    x: { from: 0, to: 1, label: "confidence" }, y: { from: 0, to: most, label: "samples", ticks: ticks(0, most, 2) },
  });
  for (const [name, title, data] of [...series].reverse()) {
    const width = 1 / data.samples.length;
    chart.add(data.samples.map((samples, index) => {
      const x = chart.x(index * width) + 1.5, y = chart.y(samples);
      return svg("rect", { x, y, width: chart.x(width) - chart.x(0) - 3, height: chart.y(0) - y, class: `bin ${name}` },
        svg("title", {}, `${title}: ${count(samples, "sample")} in [${number(index * width)}, ${number((index + 1) * width)}]`));
    }));
  }
  return chart.node;
}

function binTable(probe, series) {
  const columns = [{ title: "Bin", number: true }, ...series.flatMap(([, title]) => ["samples", "confidence", "accuracy"]
    .map((name) => ({ title: `${title} ${name}`, number: true })))];
  const length = series[0][2].samples.length;
  const rows = Array.from({ length }, (_, index) => [
    `${number(index / length)} to ${number((index + 1) / length)}`,
    ...series.flatMap(([, , data]) => [number(data.samples[index]), number(data.confidence[index]), number(data.accuracy[index])]),
  ]);
  return { caption: `Confidence bins of ${probe}`, columns, rows };
}
