import { line } from "../shared/axes.js";
import { svg } from "../shared/elements.js";
import { count, number, signed } from "../shared/format.js";
import { figure, mark, plot } from "../shared/plot.js";

const GROUPS_SHOWN = 20;

/** One row per group (or kind of corruption): FP32's value and the quantized model's, joined. */
export function groupChart(pair, probe, name, label, reference, observed) {
  const rows = Object.keys(observed).map((group) => ({
    group, samples: observed[group].samples, now: observed[group][name],
    before: reference && reference[group] ? reference[group][name] : null,
  })).filter((row) => typeof row.now === "number");
  if (!rows.length) return null;
  // What moved most comes first; sign says which way is worse.
  const worse = name === "top1" ? -1 : 1;
  const change = (row) => (typeof row.before === "number" ? worse * (row.now - row.before) : 0);
  rows.sort((a, b) => change(b) - change(a) || (a.group < b.group ? -1 : 1));
  const drawn = rows.slice(0, GROUPS_SHOWN);
  const values = rows.flatMap((row) => [row.now, row.before]).filter((value) => typeof value === "number");
  const low = Math.max(0, Math.min(...values)), high = Math.max(...values), pad = (high - low) * 0.08 || 0.02;
  const names = drawn.map((row) => shorten(row.group));
  const chart = plot({
    name: `${label} of ${probe} by group, FP32 against ${pair.quantizer}; ${drawn[0].group} moved most`,
    height: 52 + 18 * drawn.length, left: 20 + 6.2 * Math.max(...names.map((text) => text.length)),
    x: { from: Math.max(0, low - pad), to: high + pad, label }, y: { from: drawn.length - 0.4, to: -0.6, label: "", ticks: [] },
  });
  drawn.forEach((row, index) => {
    const y = chart.y(index);
    chart.add(svg("text", { x: chart.x(Math.max(0, low - pad)) - 8, y: y + 3.5, "text-anchor": "end" }, names[index]));
    if (typeof row.before === "number") {
      chart.add(line(chart.x(row.before), y, chart.x(row.now), y, "gap"),
        mark(chart.x(row.before), y, "fp32", `FP32, ${row.group}: ${number(row.before)}`));
    }
    chart.add(mark(chart.x(row.now), y, "quantized", `${pair.quantizer}, ${row.group}: ${number(row.now)}, ${count(row.samples, "sample")}`));
  });
  const hidden = rows.length - drawn.length;
  const note = `${label}${hidden ? `; ${hidden} more in the numbers` : ""}`;
  return figure(probe, note, chart.node, {
    caption: `${label} of ${probe} by group`,
    columns: [{ title: "Group" }, ...["Samples", "FP32", "Quantized", "Change"].map((title) => ({ title, number: true }))],
    rows: rows.map((row) => [row.group, number(row.samples), number(row.before), number(row.now),
      typeof row.before === "number" ? signed(row.now - row.before) : "–"]),
  });
}

function shorten(text, most = 20) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
