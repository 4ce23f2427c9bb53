const SHORTCUTS = [["/", "search"], ["j or ↓", "next case"], ["k or ↑", "previous case"],
  ["Enter", "open or close the case in focus"], ["y", "copy a link to the open case"],
  ["Escape", "leave the search, close the case, then the pair"], ["t", "light or dark"], ["?", "this help"]];

function helpDialog() {
  const dialog = el("dialog", { id: "help", "aria-labelledby": "help-title" },
    el("h2", { id: "help-title" }, "Keys"),
    el("dl", { class: "keys" }, SHORTCUTS.map(([key, text]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)))),
    el("button", { type: "button", onclick: () => dialog.close() }, "Close"));
  return dialog;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const target = event.target, typing = target.matches("input, select, textarea");
  if (event.key === "Escape") { escape(target, typing); return; }
  if (typing) return;
  const arrow = target.matches("[data-case]") ? { ArrowDown: 1, ArrowUp: -1 }[event.key] : 0;
  const step = { j: 1, k: -1 }[event.key] || arrow;
  if (step) moveFocus(step);
  else if (event.key === "/") focusSearch();
  else if (event.key === "?") document.getElementById("help").showModal();
  else if (event.key === "t") switchTheme();
  else if (event.key === "y") copyOpen();
  else return;
  event.preventDefault();
}

function escape(target, typing) {
  if (typing) {
    if (target.id === "find" && target.value) { target.value = ""; go({ find: "" }); } else target.blur();
  } else if (state.case) go({ case: "" });
  else if (state.pair) closePair();
}

function focusSearch() {
  const field = document.getElementById("find");
  if (!field) return;
  jump("cases");
  field.focus({ preventScroll: true });
  field.select();
}

function copyOpen() {
  const button = document.querySelector("#detail button");
  if (button) button.click();
}

// Light or dark: what the system says, until the reader says otherwise.

function switchTheme() {
  const dark = isDark();
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("clipq-theme", dark ? "light" : "dark");
  } catch { /* some browsers keep nothing for local files */ }
  nameTheme();
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function recallTheme() {
  try {
    const chosen = localStorage.getItem("clipq-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* as above */ }
}

function nameTheme() {
  document.getElementById("theme").textContent = isDark() ? "☀ Light" : "☾ Dark";
}

function motion() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
}

/** Scroll to a section and put the focus there, for readers who do not see it move. */
function jump(id) {
  const target = document.getElementById(id);
  target.focus({ preventScroll: true });
  target.scrollIntoView({ behavior: motion(), block: "start" });
}
