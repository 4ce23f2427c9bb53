import { jump } from "../shared/controls.js";
import { allOf, el } from "../shared/elements.js";
import { focusSearch, helpButton, leaveSearch, listenToKeys } from "../shared/keyboard.js";
import { switchTheme, themeButton } from "../shared/theme.js";
import { adviserSection } from "./adviser.js";
import { claimSection } from "./claims.js";
import { fillOverview, originSection } from "./opening.js";
import { pictures } from "./pictures.js";
import { studyTable } from "./study-table.js";
import { look, view } from "./view.js";

const PARTS = [["overview", "Overview"], ["adviser", "Adviser"], ["claims", "Claims"], ["table", "Table"], ["figures", "Figures"], ["provenance", "Provenance"]];
const STUDY_KEYS = [
  { keys: ["/"], name: "/", text: "search configurations", run: () => { if (document.getElementById("table")) jump("table"); focusSearch(); } },
  { keys: [], name: "Enter", text: "open or close the number in focus" },
  { keys: [], name: "← and →", text: "from mark to mark, in a chart" },
  { keys: ["y"], name: "y", text: "copy a link to the open number", run: () => allOf("#number-detail .actions button")[0]?.click() },
  { keys: ["Escape"], name: "Escape", text: "leave the search, close the number, then the claim", run: leaveOpen },
  { keys: ["t"], name: "t", text: "light or dark", run: switchTheme },
];

function leaveOpen(target) {
  if (leaveSearch(target)) return false;
  if (view.cell) look({ cell: "" });
  else if (view.claim) look({ claim: "" });
  return false;
}

const content = document.getElementById("content");
fillOverview();
document.getElementById("tools").append(themeButton(), helpButton());
listenToKeys(STUDY_KEYS);
content.append(...[adviserSection(), claimSection(), studyTable()].filter(Boolean));

// What lies further down is drawn once the top is on the screen; a printed page waits for it too.
requestAnimationFrame(() => setTimeout(() => {
  content.append(...[pictures(), originSection()].filter(Boolean));
  document.getElementById("sections").append(...PARTS.filter(([id]) => document.getElementById(id)).map(([id, title]) =>
    el("li", {}, el("a", { href: `#${id}`, onclick: (event) => { event.preventDefault(); jump(id); } }, title))));
  document.getElementById("number-detail")?.scrollIntoView({ block: "center", behavior: "instant" });
  document.documentElement.dataset.ready = "";
}));
