// Light or dark: what the system says, until the reader says otherwise. Some browsers keep nothing for
// pages that are opened as files; there the choice lasts as long as the page.
import { el } from "./elements.js";

const KEPT = "clipq-theme";
const switcher = el("button", { type: "button", id: "theme", onclick: () => switchTheme() });

/** Take up what was chosen before; return the button that switches. */
export function themeButton() {
  try {
    const chosen = localStorage.getItem(KEPT);
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* nothing is kept */ }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  nameTheme();
  return switcher;
}

export function switchTheme() {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try {
    localStorage.setItem(KEPT, chosen);
  } catch { /* nothing is kept */ }
  nameTheme();
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  switcher.textContent = isDark() ? "☀ Light" : "☾ Dark";
}
