import { line } from "../shared/axes.js";
import { el } from "../shared/elements.js";
import { number } from "../shared/format.js";
import { curve, figure, plot } from "../shared/plot.js";

/** Energy of the features' principal directions and of what quantization added, and their ratio. */
export function spectrum(pair, probe, data) {
  const rows = data.rank.map((rank, index) => ({ rank, signal: data.signal[index], residual: data.residual[index] }))
    .filter((row) => row.signal > 0 && row.residual > 0);
  if (rows.length < 2) return null;
  const x = { from: rows[0].rank, to: rows[rows.length - 1].rank, label: "rank", log: true };
  const energies = rows.flatMap((row) => [row.signal, row.residual]);
  const energy = plot({
    name: `Energy per rank on ${probe}: FP32's features and the residual of ${pair.quantizer}, both axes logarithmic`,
    x, left: 54, y: { from: Math.min(...energies) / 1.5, to: Math.max(...energies) * 1.5, label: "energy", log: true },
  });
  energy.add(curve(rows.map((row) => [energy.x(row.rank), energy.y(row.signal)]), "fp32 solid"),
    curve(rows.map((row) => [energy.x(row.rank), energy.y(row.residual)]), "residual"));
  const ratio = (row) => 10 * Math.log10(row.signal / row.residual);
  const ratios = rows.map(ratio), low = Math.min(...ratios, 0), high = Math.max(...ratios, 0);
  const sqnr = plot({
    name: `SQNR per rank on ${probe}, in dB: from ${number(Math.min(...ratios))} to ${number(Math.max(...ratios))}`,
    x, left: 54, y: { from: low - 1, to: high * 1.05 + 1, label: "SQNR (dB)" },
  });
  sqnr.add(line(sqnr.x(x.from), sqnr.y(0), sqnr.x(x.to), sqnr.y(0), "guide"),
    curve(rows.map((row) => [sqnr.x(row.rank), sqnr.y(ratio(row))]), "quantized"));
  return figure(probe, "signal and residual energy per rank; below 0 dB a direction is noise",
    el("div", { class: "two" }, energy.node, sqnr.node), {
      caption: `Spectrum of ${probe}`,
      columns: ["Rank", "Signal", "Residual", "SQNR (dB)"].map((title) => ({ title, number: true })),
      rows: rows.map((row) => [number(row.rank), number(row.signal), number(row.residual), number(ratio(row))]),
    });
}
