import { details, el, notice, section } from "../shared/elements.js";
import { count } from "../shared/format.js";
import { scrollable } from "../shared/tables.js";
import { distinct, run } from "./record.js";

const OUTCOMES = { pass: ["✓", "pass", "v-pass"], fail: ["✕", "fail", "v-fail"], "not-run": ["–", "not run", "v-waived"] };

/** Conformance of kernels: one row each, one column per check. */
export function kernelSection() {
  if (!run.kernels.length) return null;
  const kernels = distinct(run.kernels, "kernel");
  const checks = [...new Set(run.kernels.map((row) => row.check))];
  const found = new Map(run.kernels.map((row) => [`${row.kernel}\n${row.check}`, row]));
  const amount = (outcome) => run.kernels.filter((row) => row.outcome === outcome).length;
  const head = el("tr", {}, ["Kernel", "Written in", "Ran on"].map((name) => el("th", { scope: "col" }, name)),
    checks.map((check) => el("th", { scope: "col", class: "turned" }, el("span", {}, check))));
  const rows = kernels.map((kernel) => {
    const mine = run.kernels.filter((row) => row.kernel === kernel);
    const where = [...new Set(mine.map((row) => row.where).filter(Boolean))].join(", ");
    return el("tr", {}, el("th", { scope: "row" }, el("code", {}, kernel)), el("td", {}, mine[0].source || "–"),
      el("td", {}, where || "–"), checks.map((check) => el("td", { class: "outcome" }, outcomeMark(found.get(`${kernel}\n${check}`)))));
  });
  const failed = run.kernels.filter((row) => row.outcome === "fail");
  const skipped = new Map();
  for (const row of run.kernels.filter((item) => item.outcome === "not-run")) {
    skipped.set(row.reason, [...(skipped.get(row.reason) || []), row]);
  }
  return section("kernels", "Kernel conformance",
    el("p", { class: "quiet" }, `${count(amount("pass"), "check")} passed, ${amount("fail")} failed, ${amount("not-run")} not run. ✓ pass, ✕ fail, – not run.`),
    scrollable("Kernel checks", el("table", { class: "plain kernels" }, el("caption", { class: "unseen" }, "Kernel checks"),
      el("thead", {}, head), el("tbody", {}, rows))),
    failed.map((row) => notice("bad", el("b", {}, `${row.kernel}, ${row.check}: `), row.reason)),
    [...skipped].map(([reason, items]) => el("div", { class: "notice" },
      details(`${count(items.length, "check")} not run: ${reason || "no reason given"}`,
        el("ul", { class: "long" }, items.map((row) => el("li", {}, `${row.kernel}, ${row.check}`)))))));
}

function outcomeMark(row) {
  if (!row) return "";
  const [symbol, word, name] = Object.hasOwn(OUTCOMES, row.outcome) ? OUTCOMES[row.outcome] : ["?", row.outcome, ""];
  return el("span", { class: `verdict ${name}`, title: row.reason || word },
    el("span", { class: "symbol", "aria-hidden": "true" }, symbol), el("span", { class: "unseen" }, word));
}
