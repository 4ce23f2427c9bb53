import { commandList } from "../shared/commands.js";
import { copyButton } from "../shared/controls.js";
import { el, factList } from "../shared/elements.js";
import { better, count, number, signed, times } from "../shared/format.js";
import { evidence, figures, run } from "./record.js";
import { go, showFigures, stateAddress } from "./state.js";

/** Return everything that is known of one case. */
export function caseDetail(item) {
  const key = `${item.model}/${item.quantizer}`;
  const actions = el("div", { class: "row actions" },
    copyButton("Copy link", () => new URL(stateAddress({ case: item.id }), location.href).href),
    copyButton("Copy case id", () => item.id),
    el("button", { type: "button", class: "small", onclick: () => go({ pair: key, case: "" }) }, "Metrics of this pair"),
    figures[`${key}/${item.probe}`]
      ? el("button", { type: "button", class: "small", onclick: () => showFigures(key) }, "Figures") : null);
  return el("div", { class: "detail" },
    item.reason ? el("p", { class: "reason" }, item.reason) : null,
    el("p", {}, sentence(item)),
    factList(everyFact(item)),
    item.command ? commandList([item.command]) : null,
    actions);
}

/** Say in words what the row's picture shows. */
function sentence(item) {
  const unit = item.unit ? ` ${item.unit}` : "";
  if (item.excess === null) return `Nothing was compared: the case is ${item.verdict}.`;
  if (item.floor) {
    return `Observed ${number(item.observed)} against a limit of ${number(item.margin)}${unit}.`;
  }
  const size = `${item.loss > 0 ? "Worse" : item.loss < 0 ? "Better" : "No different"} than FP32`;
  const by = item.loss ? ` by ${number(Math.abs(item.loss))}${unit}, ${times(Math.abs(item.excess))} the margin` : "";
  const direction = better(item.direction) ? ` (${better(item.direction)})` : "";
  return `${size}${by}${direction}.${doubts(item)}`;
}

/** Say why a case is not decided, and whether more samples would help. */
function doubts(item) {
  const open = new Map([
    ["suspect", " Probably worse than the margin allows, but not surely."],
    ["beyond-margin", " That is beyond the margin, but it may be chance."],
    ["under-powered", " That is within the margin, but the interval reaches over it."],
  ]);
  if (!open.has(item.standing)) return "";
  const needed = item.samples_needed
    ? ` ${count(item.samples, "sample")} cannot tell; about ${item.samples_needed.toLocaleString("en")} could.` : "";
  if (item.standing === "suspect") return `${open.get("suspect")}${needed || atMargin(item)} Or keep layers in float (clipq blame), or sign a waiver.`;
  return needed ? open.get(item.standing) + needed : atMargin(item) || open.get(item.standing);
}

/** Say that more samples are no way out, where a standard error could have told how many were needed. */
function atMargin(item) {
  return item.standard_error === null ? "" : " The loss lies at the margin: more samples will not tell.";
}

function everyFact(item) {
  const level = run.statistics.alpha ? `${number(100 * (1 - run.statistics.alpha))} % interval of the loss` : "interval of the loss";
  const interval = item.low === null || item.high === null ? "nothing was resampled"
    : `[${signed(item.low)}, ${signed(item.high)}]`;
  const probe = (evidence.probes || {})[item.probe] || {};
  const stored = (evidence.predictions || {})[`${item.model}/${item.quantizer}/${item.probe}`] || {};
  return [
    ["model", item.model], ["quantizer", item.quantizer],
    ["probe", probe.role ? `${item.probe} (${probe.role})` : item.probe],
    ["verdict", item.standing === item.verdict ? item.verdict : `${item.verdict} (${item.standing})`],
    ["metric", item.metric_version ? `${item.metric}, version ${item.metric_version}` : item.metric],
    ["samples", item.samples ? item.samples.toLocaleString("en") : "–"],
    ["FP32", number(item.baseline)], ["observed", number(item.observed)],
    ["loss", item.loss === null ? "–" : signed(item.loss)], [level, interval],
    ["margin", number(item.margin)], ["unit", item.unit || "–"],
    ["standard error", number(item.standard_error)],
    ...(item.offset ? [["offset", signed(item.offset)]] : []),
    ["p-value", number(item.p_value)], ["p-value, corrected", number(item.adjusted_p)],
    ...(stored.sha256 ? [["predictions sha256", el("code", {}, String(stored.sha256).slice(0, 16))]] : []),
  ];
}
