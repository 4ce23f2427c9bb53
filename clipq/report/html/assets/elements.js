"use strict";
// The files of this folder are joined, in the order that page.py names, into the page's one script.
// Text becomes text: nothing here, and nothing that follows, ever parses a string as markup.

/** Return an element; `attributes` may hold functions (listeners) under "on...". */
function el(tag, attributes, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** Return an SVG element. */
function svg(tag, attributes, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}

/** Return a section of the page with its heading. */
function section(id, title, ...children) {
  const heading = el("h2", { id: `${id}-title` }, title);
  return el("section", { id, "aria-labelledby": `${id}-title`, tabindex: "-1" }, heading, children);
}

/** Return a table inside a box that scrolls sideways where the window is narrow. */
function table({ caption, columns, rows, quiet = false, name = "plain" }) {
  const head = el("tr", {}, columns.map((column) =>
    el("th", { scope: "col", class: column.number ? "number" : null }, column.title)));
  const body = rows.map((row) => el("tr", {}, row.map((cell, index) => {
    const tag = index === 0 ? "th" : "td";
    const attributes = { class: columns[index].number ? "number" : null };
    if (index === 0) attributes.scope = "row";
    return el(tag, attributes, cell);
  })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: name },
      el("caption", { class: quiet ? "unseen" : null }, caption),
      el("thead", {}, head), el("tbody", {}, body)));
}

/** Return a closed list of details. */
function details(title, ...children) {
  return el("details", {}, el("summary", {}, title), children);
}

/** Return details whose content is made when they are first opened. */
function lazyDetails(title, make) {
  const node = el("details", {}, el("summary", {}, title));
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length === 1) node.append(make());
  });
  return node;
}

/** Return a labelled list of choices; each choice is [value, text]. */
function choice(label, choices, value, onChange) {
  const list = el("select", { "aria-label": label, onchange: () => onChange(list.value) },
    choices.map(([key, text]) => el("option", { value: key }, text)));
  list.value = value;
  return el("label", { class: "choice" }, el("span", { "aria-hidden": "true" }, label), list);
}

/** Tell screen readers, and nobody else. */
function announce(text) {
  document.getElementById("announce").textContent = text;
}

/** Return a button that copies `text()`. */
function copyButton(label, text) {
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
