import { jump } from "../shared/controls.js";
import { allOf, el } from "../shared/elements.js";
import { focusSearch, helpButton, leaveSearch, listenToKeys } from "../shared/keyboard.js";
import { switchTheme, themeButton } from "../shared/theme.js";
import { artifactSection } from "./artifacts.js";
import { caseList, moveFocus, relist, revealCase } from "./cases.js";
import { figureSection } from "./figures.js";
import { heatmap } from "./heatmap.js";
import { kernelSection } from "./kernels.js";
import { closePair } from "./pair.js";
import { paretoSection } from "./pareto.js";
import { provenance } from "./provenance.js";
import { caseOf, cases } from "./record.js";
import { go, state } from "./state.js";
import { summary } from "./summary.js";

const SECTIONS = [["candidates", "Candidates"], ["blocking", "Blocking"], ["heatmap", "Heat map"], ["cases", "Cases"], ["figures", "Figures"],
  ["artifacts", "Artifacts"], ["pareto", "Cost"], ["kernels", "Kernels"], ["waivers", "Waivers"], ["provenance", "Provenance"]];
// Arrows walk only from a case on: elsewhere they scroll the page.
const walk = (step) => (target, pressed) => (pressed.startsWith("Arrow") && !target.matches("[data-case]") ? false : moveFocus(step));
const SHORTCUTS = [
  { keys: ["/"], name: "/", text: "search", run: () => { if (cases.length) jump("cases"); focusSearch(); } },
  { keys: ["j", "ArrowDown"], name: "j or ↓", text: "next case", run: walk(1) },
  { keys: ["k", "ArrowUp"], name: "k or ↑", text: "previous case", run: walk(-1) },
  { keys: [], name: "Enter", text: "open or close the case in focus" },
  { keys: ["y"], name: "y", text: "copy a link to the open case", run: () => allOf("#detail .actions button")[0]?.click() },
  { keys: ["Escape"], name: "Escape", text: "leave the search, close the case, then the pair", run: leave },
  { keys: ["t"], name: "t", text: "light or dark", run: switchTheme },
];

function leave(target) {
  if (leaveSearch(target)) return false;
  if (state.case) go({ case: "" });
  else if (state.pair) closePair();
  return false;
}

const report = document.getElementById("report");
report.append(...[summary(), heatmap(), caseList()].flat().filter(Boolean));
document.getElementById("tools").append(themeButton(), helpButton());
listenToKeys(SHORTCUTS);
if (cases.length) relist();
if (caseOf.has(state.case)) revealCase(caseOf.get(state.case));

// What lies further down is drawn once the top is on the screen; a printed page waits for it too.
requestAnimationFrame(() => setTimeout(() => {
  report.append(...[figureSection(), artifactSection(), paretoSection(), kernelSection(), provenance()].filter(Boolean));
  document.getElementById("sections").append(...SECTIONS.filter(([id]) => document.getElementById(id)).map(([id, title]) =>
    el("li", {}, el("a", { href: `#${id}`, onclick: (event) => { event.preventDefault(); jump(id); } }, title))));
  document.documentElement.dataset.ready = "";
}));
