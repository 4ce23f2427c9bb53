// Which quantizer for my model under these margins? Everything is computed here, anew with each change.
import { choice } from "../shared/controls.js";
import { el, notice, section } from "../shared/elements.js";
import { number } from "../shared/format.js";
import { adviceOf } from "./answer.js";
import { askedOf, criteriaOf, projectMargin } from "./asked.js";
import { columnTitle, configurations, costOf, costs, costTitle, studyModels } from "./measured.js";
import { look, onView, view } from "./view.js";

export function adviserSection() {
  const models = studyModels.map((model) => model.name).filter((name) => criteriaOf(name).length);
  if (!models.length) return null;
  const model = () => (models.includes(view.for) ? view.for : models[0]);
  const controls = el("div", { class: "row filters" });
  const limits = el("div", { class: "limits", role: "group", "aria-label": "Margins" });
  const answer = el("div", { class: "advice" });
  const drawControls = () => {
    const known = costsOf(model()), cost = costAsked(model());
    const most = el("input", {
      type: "number", min: "0", step: "any", id: "most", "aria-label": `at most, ${cost ? costTitle(cost) : "cost"}`,
      placeholder: "no limit", oninput: () => look({ most: most.value }),
    });
    most.value = view.most;
    controls.replaceChildren(...[
      choice("model", models.map((name) => [name, name]), model(), (name) => look({ for: name, margins: "", most: "" })),
      ...(cost ? [choice("cost", known.map((key) => [key, costTitle(key)]), cost, (key) => look({ pays: key, most: "" })),
        el("label", { class: "choice" }, el("span", { "aria-hidden": "true" }, "at most"), most)] : []),
      choice("Pareto set of cost and", [["", "the worst loss in margins"], ["all", "all metrics together"], ...criteriaOf(model()).map((key) => [key, columnTitle(key)])],
        view.front, (front) => look({ front }))]);
    limits.replaceChildren(...criteriaOf(model()).map((key) => marginField(model(), key)),
      el("button", { type: "button", class: "small", onclick: () => { look({ margins: "" }); drawControls(); } }, "The project's margins"));
  };
  const drawAnswer = () => {
    const asked = askedOf(model());
    answer.replaceChildren(...(Object.keys(asked).length ? adviceOf(model(), asked, costAsked(model()))
      : [notice("", "No metric is asked for: tick at least one.")]));
  };
  onView((before) => {
    if (["for", "pays"].some((key) => before[key] !== view[key])) drawControls();
    if (["for", "pays", "most", "margins", "front"].some((key) => before[key] !== view[key])) drawAnswer();
  });
  drawControls();
  // Drawn once the top of the page is on the screen: it takes a while.
  requestAnimationFrame(() => setTimeout(drawAnswer));
  return section("adviser", "Which quantizer under these margins?",
    el("p", { class: "quiet" }, "A margin is how much worse than FP32 is still acceptable. Where none is given it is the project's, of several formats the smallest; a metric without its tick may lose anything."),
    controls, limits, answer);
}

function costsOf(model) {
  return [...costs.keys()].filter((key) => configurations.some((row) => row.model === model && costOf(row, key) !== null));
}

function costAsked(model) {
  const known = costsOf(model);
  return known.includes(view.pays) ? view.pays : known[0] || "";
}

/** Return a tick, a field and a slider of one margin. */
function marginField(model, key) {
  const usual = projectMargin(model, key), title = columnTitle(key);
  const said = view.margins.split(" ").find((part) => part.slice(0, part.lastIndexOf("=")) === key);
  const now = said ? said.slice(said.lastIndexOf("=") + 1) : "";
  const set = (value) => {
    const others = view.margins.split(" ").filter((part) => part && part.slice(0, part.lastIndexOf("=")) !== key);
    look({ margins: [...others, ...(value ? [`${key}=${value}`] : [])].join(" ") });
  };
  const tick = el("input", { type: "checkbox", onchange: () => {
    field.disabled = slider.disabled = !tick.checked;
    set(tick.checked ? field.value : "none");
  } });
  const field = el("input", {
    type: "number", min: "0", step: "any", "aria-label": `margin of ${title}`, oninput: () => { set(field.value); place(); },
    placeholder: number(usual),
  });
  // In powers of two around the project's margin: from an eighth to eight times.
  const slider = el("input", { type: "range", min: "-3", max: "3", step: "0.25", "aria-label": `margin of ${title}, by halving and doubling the project's`, oninput: () => {
    field.value = String(Number((usual * 2 ** Number(slider.value)).toPrecision(3)));
    set(field.value);
  } });
  const place = () => { slider.value = String(Math.log2((Number(field.value) || usual) / usual)); };
  tick.checked = now !== "none";
  field.disabled = slider.disabled = !tick.checked;
  field.value = now === "none" ? "" : now;
  place();
  return el("div", { class: "margin" }, el("label", { class: "tick" }, tick, ` ${title}`), field, slider);
}
