recallTheme();

const SECTIONS = [["blocking", "Blocking"], ["heatmap", "Heat map"], ["cases", "Cases"], ["figures", "Figures"],
  ["pareto", "Cost"], ["kernels", "Kernels"], ["waivers", "Waivers"], ["provenance", "Provenance"]];

document.getElementById("report").append(...[summary(), heatmap(), caseList()].flat().filter(Boolean));
document.getElementById("tools").append(
  el("button", { type: "button", id: "theme", onclick: switchTheme }),
  el("button", { type: "button", onclick: () => document.getElementById("help").showModal(), "aria-keyshortcuts": "?" }, "Keys ?"));
document.body.append(helpDialog());
nameTheme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
document.addEventListener("keydown", onKey);
if (cases.length) relist();
if (caseOf.has(state.case)) revealCase(caseOf.get(state.case));

// What lies further down is drawn once the top is on the screen; a printed page waits for it too.
requestAnimationFrame(() => setTimeout(() => {
  document.getElementById("report").append(...[figureSection(), paretoSection(), kernelSection(), provenance()].filter(Boolean));
  document.getElementById("sections").append(...SECTIONS.filter(([id]) => document.getElementById(id)).map(([id, title]) =>
    el("li", {}, el("a", { href: `#${id}`, onclick: (event) => { event.preventDefault(); jump(id); } }, title))));
  document.documentElement.dataset.ready = "";
}));
