// What was swept, and what it can be repeated with.
import { el, factList, section } from "../shared/elements.js";
import { number, plainText } from "../shared/format.js";
import { table } from "../shared/tables.js";
import { configurations, filledColumns, KINDS, methods, study, studyModels, studyValues } from "./measured.js";
import { changeText, intervalText } from "./numbers.js";

/** Fill the top of the page. */
export function fillOverview() {
  const units = new Set(configurations.flatMap((row) => row.units).filter(Boolean));
  const kinds = studyValues("kind").map((kind) => `${configurations.filter((row) => row.kind === kind).length} ${KINDS.get(kind)}`);
  document.getElementById("overview").append(
    factList([
      ["configurations", `${number(configurations.length)} (${kinds.join(", ")})`], ...(units.size ? [["units of sweeps", number(units.size)]] : []),
      ["methods", number(methods.length)], ["formats", studyValues("bits").filter(Boolean).join(", ") || "–"],
      ["towers", studyValues("towers").join(", ")], ["metrics", number(filledColumns.length)],
    ]),
    table({ caption: "Models, in FP32", columns: [
      { title: "Model" }, { title: "Confidence − accuracy" }, { title: "Configurations", number: true },
      ...filledColumns.slice(0, 6).map((column) => ({ title: column.title, number: true }))],
    rows: studyModels.map((model) => [model.name, biasText(model.bias), number(configurations.filter((row) => row.model === model.name).length),
      ...filledColumns.slice(0, 6).map((column) => number(model.fp32[column.key]))]) }));
}

function biasText(bias) {
  if (!bias) return "not known";
  const said = bias.low > 0 ? "over-confident" : bias.high < 0 ? "under-confident" : "not decided";
  return `${changeText(bias.value, (bias.high - bias.low) / 2)} ${intervalText(bias.low, bias.high)}: ${said}`;
}

/** Return what the numbers come from: tables of what is listed, facts of the rest. */
export function originSection() {
  const entries = Object.entries(study.provenance).filter(([, value]) => value !== null && plainText(value) !== "–");
  if (!entries.length) return null;
  const listed = entries.filter(([, value]) => Array.isArray(value) && value.length && value.every((item) => item && typeof item === "object"));
  const single = entries.filter((entry) => !listed.includes(entry));
  return section("provenance", "Provenance",
    single.length ? factList(single.map(([name, value]) => [name.replaceAll("_", " "), el("span", { class: "wrap" }, plainText(value))])) : null,
    listed.map(([name, items]) => {
      const keys = [...new Set(items.flatMap((item) => Object.keys(item)))];
      return table({ caption: name.replaceAll("_", " "), columns: keys.map((title) => ({ title: title.replaceAll("_", " ") })),
        rows: items.map((item) => keys.map((key) => el("span", { class: "wrap" }, plainText(item[key])))) });
    }));
}
