// Keys of the page: a list of { keys, name, text, run }. Where somebody types, only Escape is heard.
import { allOf, el } from "./elements.js";

/** Listen to keys, and to "?", which explains them; `run(target, key)` may return false: not for this target. */
export function listenToKeys(shortcuts) {
  const all = [...shortcuts, { keys: ["?"], name: "?", text: "this help", run: showHelp }];
  const actions = new Map(all.flatMap(({ keys, run }) => keys.map((key) => [key, run])));
  document.body.append(helpDialog(all));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const run = actions.get(event.key);
    if (!run || (isTyping(event.target) && event.key !== "Escape")) return;
    if (run(event.target, event.key) !== false) event.preventDefault();
  });
}

export function helpButton() {
  return el("button", { type: "button", onclick: showHelp, "aria-keyshortcuts": "?" }, "Keys ?");
}

/** Put the focus into the search field; return whether there is one. */
export function focusSearch() {
  const [field] = allOf("input#find");
  if (!field) return false;
  field.focus({ preventScroll: true });
  field.select();
  return true;
}

/** Empty the search, then leave it; return whether somebody was typing. */
export function leaveSearch(target) {
  if (!isTyping(target)) return false;
  if (target.id === "find" && target.value) {
    target.value = "";
    target.dispatchEvent(new Event("input"));
  } else target.blur();
  return true;
}

function isTyping(target) {
  return target.matches("input, select, textarea");
}

function showHelp() {
  allOf("dialog#help")[0].showModal();
}

function helpDialog(shortcuts) {
  const dialog = el("dialog", { id: "help", "aria-labelledby": "help-title" },
    el("h2", { id: "help-title" }, "Keys"),
    el("dl", { class: "keys" }, shortcuts.map(({ name, text }) => el("div", {}, el("dt", {}, el("kbd", {}, name)), el("dd", {}, text)))),
    el("button", { type: "button", onclick: () => dialog.close() }, "Close"));
  return dialog;
}
