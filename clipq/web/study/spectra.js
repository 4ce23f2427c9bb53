// How much of each principal direction survives: SQNR by rank, a line per configuration.
import { line } from "../shared/axes.js";
import { el } from "../shared/elements.js";
import { number } from "../shared/format.js";
import { curve, figure, plot } from "../shared/plot.js";
import { methods, studyModel } from "./measured.js";
import { pointing } from "./pointing.js";
import { around, methodMark, roomFor } from "./scatter.js";
import { showUnitsOf } from "./study-table.js";

const LEAST = -30; // dB; directions without energy lie far below, and say no more
const MOST = 40; // lines that can be told apart, with the help of pointing

/** Return the figure of spectra of these configurations. */
export function spectra(rows) {
  const all = rows.filter((row) => row.residual).map((row) => ({ row, bands: bandsOf(row) })).filter(({ bands }) => bands.length > 1);
  if (!all.length) return null;
  // Evenly from the worst to the best, so that what is shown stands for all.
  const sorted = all.sort((a, b) => meanOf(a.bands) - meanOf(b.bands));
  const shown = sorted.length <= MOST ? sorted : Array.from({ length: MOST }, (_, at) => sorted[Math.round((at * (sorted.length - 1)) / (MOST - 1))]);
  const width = roomFor(0.5), ranks = shown.flatMap(({ bands }) => bands.map((band) => band.rank));
  const chart = plot({
    name: "SQNR by rank", width, height: Math.round(Math.min(380, 200 + width / 3)), left: 62,
    x: { from: Math.min(...ranks), to: Math.max(...ranks), label: "rank of the direction in FP32's features", log: true },
    y: { ...around(shown.flatMap(({ bands }) => bands.map((band) => band.ratio))), label: "SQNR (dB), higher is better" },
  });
  chart.add(line(chart.x(Math.min(...ranks)), chart.y(0), chart.x(Math.max(...ranks)), chart.y(0), "zero"));
  const items = shown.map(({ row, bands }) => {
    const points = bands.map((band) => [chart.x(band.rank), chart.y(band.ratio)]);
    const [x, y] = points[0], name = `point-${methods.indexOf(row.method) % 5}`;
    chart.add(curve(points, `spectrum ${name}${row.kind === "qat" ? " dashed" : ""}`), methodMark(row, ...points[points.length - 1]));
    return {
      row, x, y, points, title: `${row.model} / ${row.text}`,
      lines: () => [curve(points, "spectrum picked")],
      say: () => `SQNR ${number(round(bands[0].ratio))} dB at rank ${bands[0].rank}, ${number(round(bands[bands.length - 1].ratio))} dB at rank ${bands[bands.length - 1].rank}`,
    };
  });
  const { node, told } = pointing(chart, items, "SQNR by rank", ({ row }) => showUnitsOf(row));
  const left = all.length > shown.length ? `${shown.length} of ${all.length} configurations, evenly from the worst to the best; ` : "";
  return figure("SQNR by rank", `${left}signal over what quantization added; below 0 dB a direction is noise (less than −30 dB stands at −30); dashed: QAT`, [node, told], {
    caption: "SQNR by rank, in dB",
    columns: [{ title: "Model" }, { title: "Configuration", names: true }, { title: "SQNR (dB) by rank" }],
    rows: shown.map(({ row, bands }) => [row.model, el("code", {}, row.text), bands.map((band) => `${band.rank}: ${number(round(band.ratio))}`).join(", ")]),
  });
}

function bandsOf({ model, residual }) {
  const { rank: ranks, signal } = studyModel.get(model).spectrum;
  return ranks.map((rank, at) => ({ rank, ratio: Math.max(LEAST, 10 * Math.log10(signal[at] / residual[at])) })).filter((band) => Number.isFinite(band.ratio));
}

function meanOf(bands) {
  return bands.reduce((sum, band) => sum + band.ratio, 0) / bands.length;
}

function round(value) {
  return Number(value.toPrecision(3));
}
