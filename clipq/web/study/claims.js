// What the sweep says of the study's claims: overall and of each model.
import { el, factList, lazyDetails, section } from "../shared/elements.js";
import { count, number } from "../shared/format.js";
import { scrollable, tableHead, tableRow } from "../shared/tables.js";
import { badge } from "../shared/verdicts.js";
import { configurations, study, studyModels } from "./measured.js";
import { changeText, intervalText } from "./numbers.js";
import { showUnitsOf } from "./study-table.js";
import { look, onView, view } from "./view.js";

const ANSWERS = new Map([["reproduced", ["pass", "✓"]], ["not reproduced", ["fail", "✕"]], ["undecided", ["inconclusive", "?"]]]);
const ALL = "all models";

export function claimSection() {
  if (!study.claims.length) return null;
  const named = new Map();
  for (const claim of study.claims) {
    const name = `${claim.claim} ${claim.part || ""}`.trim();
    if (!named.has(name)) named.set(name, { name, says: claim.says, by: new Map() });
    named.get(name).by.set(claim.model ?? ALL, claim);
  }
  const across = [ALL, ...studyModels.map((model) => model.name)].filter((model) => [...named.values()].some(({ by }) => by.has(model)));
  const columns = [{ title: "Claim" }, { title: "What it says", names: true }, ...across.map((title) => ({ title }))];
  const body = el("tbody", { id: "answers" });
  const draw = () => {
    body.replaceChildren(...[...named.values()].flatMap((claim) => {
      const row = tableRow(columns, [el("b", {}, claim.name), claim.says, ...across.map((model) => answerButton(claim, model))]);
      const open = across.find((model) => claimKey(claim, model) === view.claim && claim.by.has(model));
      return open ? [row, el("tr", { class: "detail-row", id: "claim-detail" },
        el("td", { colspan: String(columns.length) }, claimDetail(claim, open)))] : [row];
    }));
  };
  onView((before) => {
    if (before.claim === view.claim) return;
    const opener = document.activeElement, key = opener instanceof HTMLElement ? opener.dataset.claim : "";
    draw();
    if (key) [...body.querySelectorAll("[data-claim]")].find((button) => button instanceof HTMLElement && button.dataset.claim === key)?.focus({ preventScroll: true });
  });
  draw();
  return section("claims", "Claims",
    el("p", { class: "quiet" }, "The claims of the study behind clipq, answered from what was measured. Each side errs at most 2.5 % of the time; what an answer rests on opens below it."),
    scrollable("Claims", el("table", { class: "claims" }, el("caption", { class: "unseen" }, "Claims, overall and of each model"),
      el("thead", {}, tableHead(columns)), body)));
}

function claimKey(claim, model) {
  return `${claim.name}|${model}`;
}

function answerButton({ name, by }, model) {
  const claim = by.get(model);
  if (!claim) return "–";
  if (claim.about === false) return el("span", { class: "quiet", title: claim.reason || null }, "not about it");
  const [verdict, symbol] = ANSWERS.get(claim.answer) || ["inconclusive", "?"];
  const key = claimKey({ name }, model), effect = claim.effects[0];
  return el("button", {
    type: "button", class: "digits answer", "data-claim": key, "aria-expanded": String(view.claim === key),
    onclick: () => look({ claim: view.claim === key ? "" : key }),
  }, badge(verdict, symbol, claim.answer), el("span", { class: "quiet" }, effect ? effectText(effect) : claim.reason ? "needs more" : ""));
}

function effectText(effect) {
  return `${effect.name} ${changeText(effect.value, (effect.high - effect.low) / 2)} ${intervalText(effect.low, effect.high)}${effect.unit ? ` ${effect.unit}` : ""}`;
}

function claimDetail({ name, by }, model) {
  const claim = by.get(model);
  const facts = [
    ["rule", claim.rule], ["effects looked at", number(claim.looks)], ["p-value", number(claim.p_value)],
    ["p-value, for the whole table", number(claim.p_value_table)],
    ...(claim.option ? [["shown", el("code", {}, claim.option)]] : []),
    ...(claim.reason ? [["why", claim.reason]] : []),
    ...((claim.left_out || []).length ? [["left out", claim.left_out.join(", ")]] : []),
  ];
  const rows = (claim.configurations || []).map((at) => configurations[at]).filter(Boolean);
  return el("div", { class: "detail" }, el("p", {}, el("b", {}, `${name}, ${model}: `), `${claim.says}: ${claim.answer}.`),
    claim.effects.length ? el("ul", {}, claim.effects.map((effect) => el("li", {}, `${effectText(effect)}${effect.seeds ? `, ${count(effect.seeds, "seed")}` : ""}`))) : null,
    factList(facts),
    rows.length ? lazyDetails(`${count(rows.length, "configuration")} behind it`, () => el("ul", { class: "ids" }, rows.map((row) => el("li", {},
      el("button", { type: "button", class: "link", onclick: () => showUnitsOf(row) }, el("code", {}, row.id)))))) : null);
}
