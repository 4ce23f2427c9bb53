// What a reader acts on, and where the focus goes.
import { el } from "./elements.js";

/** Return a labelled list of choices; each choice is [value, text]. */
export function choice(label, choices, value, onChange) {
  const list = el("select", { "aria-label": label, onchange: () => onChange(list.value) },
    choices.map(([key, text]) => el("option", { value: key }, text)));
  list.value = value;
  return el("label", { class: "choice" }, el("span", { "aria-hidden": "true" }, label), list);
}

/** Return the page's one search field. */
export function searchField(label, value, onChange) {
  const field = el("input", {
    type: "search", id: "find", placeholder: label, "aria-label": label, autocomplete: "off",
    spellcheck: "false", "aria-keyshortcuts": "/", oninput: () => onChange(field.value.trim()),
  });
  field.value = value;
  return field;
}

/** Tell screen readers, and nobody else. */
export function announce(text) {
  document.getElementById("announce").textContent = text;
}

/** Return a button that copies `text()`. */
export function copyButton(label, text) {
  const button = el("button", { type: "button", class: "small", onclick: () => copy(text(), button) });
  button.textContent = label;
  return button;
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Browsers refuse the clipboard to some files: show the text, selected, to be copied by hand.
    const field = el("input", { class: "copy", readonly: true, "aria-label": "Text to copy" });
    field.value = text;
    button.after(field);
    field.select();
    field.addEventListener("blur", () => field.remove());
  }
  announce(button.textContent);
  setTimeout(() => { button.textContent = before; }, 1500);
}

export function motion() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
}

/** Scroll to a section and put the focus there, for readers who do not see it move. */
export function jump(id) {
  const target = document.getElementById(id);
  target.focus({ preventScroll: true });
  target.scrollIntoView({ behavior: motion(), block: "start" });
}
