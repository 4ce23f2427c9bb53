import { announce } from "../shared/controls.js";
import { allOf } from "../shared/elements.js";
import { focusSearch, helpButton, leaveSearch, listenToKeys } from "../shared/keyboard.js";
import { switchTheme, themeButton } from "../shared/theme.js";
import { casePage } from "./case.js";
import { casesPage, pairPage } from "./cases.js";
import { pageAddress, readAddress } from "./links.js";
import { takeOverview, takePair } from "./model.js";
import { overviewPage } from "./overview.js";
import { missingPage } from "./parts.js";
import { runsPage } from "./runs.js";
import { stepsPage } from "./steps.js";

const PAGES = new Map([["", overviewPage], ["cases", casesPage], ["pair", pairPage], ["case", casePage], ["steps", stepsPage], ["runs", runsPage]]);
const SITE_KEYS = [
  { keys: ["/"], name: "/", text: "search, or all cases", run: () => { if (!focusSearch()) location.hash = pageAddress("cases"); } },
  { keys: ["Escape"], name: "Escape", text: "leave the search", run: (target) => leaveSearch(target) && false },
  { keys: [], name: "← and →", text: "from run to run, in a chart" },
  { keys: [], name: "Page Up, Page Down", text: "from step to step, in a chart" },
  { keys: [], name: "Enter", text: "open the run that a chart points at" },
  { keys: ["t"], name: "t", text: "light or dark", run: switchTheme },
];

// What the data files call, each with what it holds.
Object.defineProperty(globalThis, "clipqSite", { enumerable: true, value: Object.freeze({
  overview: (data) => { takeOverview(data); start(); },
  pair: takePair,
}) });

function showPage() {
  const { page, parts, query } = readAddress();
  const make = PAGES.get(page) || (() => missingPage(`There is no page ${page}.`));
  document.getElementById("main").replaceChildren(make(query, parts));
  for (const link of allOf("nav [data-page]")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function start() {
  document.getElementById("tools").append(themeButton(), helpButton());
  listenToKeys(SITE_KEYS);
  showPage();
  addEventListener("hashchange", () => {
    showPage();
    scrollTo(0, 0);
    document.getElementById("main").focus({ preventScroll: true });
    announce(document.title);
  });
}
