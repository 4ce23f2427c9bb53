import { choice } from "../shared/controls.js";
import { el, section } from "../shared/elements.js";
import { plotLegend } from "../shared/plot.js";
import { reliability } from "./calibration.js";
import { detection } from "./detection.js";
import { groupChart } from "./groups.js";
import { cases, distinct, evidence, figures, pairs, worstPairFirst } from "./record.js";
import { spectrum } from "./spectrum.js";
import { go, onState, state } from "./state.js";

/** The charts of one model and quantizer against FP32, all probes side by side. */
export function figureSection() {
  const box = section("figures", "Figures");
  const keys = new Map();
  for (const pair of pairs.values()) {
    if (distinct(pair.cases, "probe").some((probe) => figures[`${pair.key}/${probe}`])) keys.set(pair.key, pair);
  }
  if (!keys.size) {
    if (!cases.length) return null;
    box.append(el("p", { class: "quiet" }, "This record holds no figures. Run the gate again to have them."));
    return box;
  }
  const worst = [...keys.values()].sort(worstPairFirst)[0];
  const chosen = () => keys.get(state.figures) || worst;
  const models = distinct([...keys.values()], "model");
  const first = (model) => [...keys.values()].filter((pair) => pair.model === model);
  const body = el("div", { id: "charts" });
  const controls = el("div", { class: "row filters" });
  let score = "";
  const draw = () => {
    const pair = chosen();
    const scores = [...new Set(probesOf(pair).flatMap(({ observed }) => Object.keys(observed.detection || {})))];
    if (!scores.includes(score)) score = scores.includes("mcm") ? "mcm" : scores[0] || "";
    controls.replaceChildren(
      choice("model", models.map((model) => [model, model]), pair.model, (model) => {
        const same = keys.get(`${model}/${pair.quantizer}`) || first(model)[0];
        go({ figures: same.key });
      }),
      choice("quantizer", first(pair.model).map((item) => [item.key, item.quantizer]), pair.key, (key) => go({ figures: key })),
      ...(scores.length > 1 ? [choice("score", scores.map((name) => [name, name]), score, (name) => { score = name; draw(); })] : []));
    body.replaceChildren(...charts(pair, score));
  };
  onState((before) => { if (before.figures !== state.figures) draw(); });
  draw();
  box.append(controls, plotLegend([["fp32", "FP32"], ["quantized", "quantized"]]), body);
  return box;
}

function probesOf(pair) {
  return distinct(pair.cases, "probe").map((probe) => ({
    probe, role: ((evidence.probes || {})[probe] || {}).role || "",
    reference: figures[`${pair.model}/fp32/${probe}`] || {}, observed: figures[`${pair.key}/${probe}`] || {},
  }));
}

/** Return the kinds of charts that this pair has, each with a heading. */
function charts(pair, score) {
  const all = probesOf(pair);
  const calibrated = all.filter(({ observed }) => observed.calibration)
    .map(({ probe, reference, observed }) => reliability(pair, probe, reference.calibration, observed.calibration));
  const detected = all.filter(({ observed }) => observed.detection && observed.detection[score])
    .map(({ probe, reference, observed }) => detection(pair, probe, score, (reference.detection || {})[score], observed.detection[score]));
  const grouped = (wanted, name, label) => all
    .filter(({ role, observed }) => observed.groups && (role === "corruption") === wanted)
    .map(({ probe, reference, observed }) => groupChart(pair, probe, name, label, reference.groups, observed.groups));
  const spectra = all.filter(({ observed }) => observed.spectrum)
    .map(({ probe, observed }) => spectrum(pair, probe, observed.spectrum));
  return [
    kind("Calibration", "Accuracy over confidence; on the dashed line a model is as sure as it is right.", calibrated),
    kind("Out of distribution", "The score of in-distribution images against that of others.", detected, [
      ["area inside", "inside, quantized"], ["area outside", "outside, quantized"],
      ["inside dashed only", "inside, FP32"], ["outside dashed only", "outside, FP32"]], "broad"),
    kind("Corruptions", "Accuracy and calibration per kind of corruption; what got worse most comes first.", [...grouped(true, "top1", "top-1 accuracy"), ...grouped(true, "ece", "ECE")]),
    kind("Subgroups", "Accuracy and calibration per group; what got worse most comes first.", [...grouped(false, "top1", "top-1 accuracy"), ...grouped(false, "ece", "ECE")]),
    kind("Spectra", "How much of each principal direction survives.", spectra, [
      ["fp32 solid only", "signal (FP32)"], ["residual only", "residual"], ["quantized only", "SQNR"]], "broad"),
  ].filter(Boolean);
}

function kind(title, text, found, entries = null, name = "") {
  const made = found.filter(Boolean);
  if (!made.length) return null;
  return el("div", { class: "kind" }, el("h3", {}, title), el("p", { class: "quiet" }, text),
    entries ? plotLegend(entries) : null, el("div", { class: `charts ${name}` }, made));
}
