// Addresses after "#" choose the page, so that it survives a reload and can be sent to somebody else.
const PAGES = new Map([["", overviewPage], ["cases", casesPage], ["pair", pairPage], ["case", casePage], ["steps", stepsPage], ["runs", runsPage]]);

function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [page = "", ...parts] = path.split("/").map(decoded);
  return { page, parts, query: new URLSearchParams(query) };
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

/** Change what the address says after "?"; `redraw` shows the page anew. */
function turn(values, { redraw = true } = {}) {
  const { page, parts, query } = address();
  for (const [name, value] of Object.entries(values)) value ? query.set(name, value) : query.delete(name);
  history.replaceState(null, "", addressOf(page, parts, Object.fromEntries(query)));
  if (redraw) show();
}

function show() {
  const { page, parts, query } = address();
  const main = document.getElementById("main");
  const make = PAGES.get(page) || (() => missingPage(`There is no page ${page}.`));
  main.replaceChildren(make(parts, query, turn));
  for (const link of document.querySelectorAll("nav [data-page]")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function missingPage(text) {
  document.title = "Not found · clipq trends";
  return el("div", {}, el("h1", {}, "Not found"), notice(text), el("p", {}, el("a", { href: "#/" }, "To the overview")));
}

function notice(text) {
  return el("p", { class: "notice bad" }, text);
}

function start() {
  themeButton();
  show();
  window.addEventListener("hashchange", () => {
    show();
    scrollTo(0, 0);
    document.getElementById("main").focus({ preventScroll: true });
    announce(document.title);
  });
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName || "");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = document.getElementById("find");
    if (!field) { location.hash = addressOf("cases"); return; }
    event.preventDefault();
    field.focus();
    field.select();
  });
}

/** The system's colours, until the reader chooses; browsers that keep nothing for files forget it. */
function themeButton() {
  const root = document.documentElement, button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const name = () => { button.textContent = isDark() ? "☀ Light" : "☾ Dark"; };
  try {
    const kept = localStorage.getItem("clipq-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* not kept */ }
  name();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("clipq-theme", root.dataset.theme); } catch { /* not kept */ }
    name();
  });
}
