// Elements and the blocks that pages are built of. Text becomes text: nothing here, and nothing that
// imports this, ever parses a string as markup.

/** Return an element; `attributes` may hold functions (listeners) under "on...". */
export function el(tag, attributes, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** Return an SVG element. */
export function svg(tag, attributes, ...children) {
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

/**
 * Return the elements that match a selector.
 * @param {string} selector
 * @returns {any[]} of whatever kind the selector names
 */
export function allOf(selector) {
  return [...document.querySelectorAll(selector)];
}

/** Return a section of the page with its heading. */
export function section(id, title, ...children) {
  const heading = el("h2", { id: `${id}-title` }, title);
  return el("section", { id, "aria-labelledby": `${id}-title`, tabindex: "-1" }, heading, children);
}

/** Return a closed list of details. */
export function details(title, ...children) {
  return el("details", {}, el("summary", {}, title), children);
}

/** Return details whose content is made when they are first opened. */
export function lazyDetails(title, make) {
  const node = el("details", {}, el("summary", {}, title));
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length === 1) node.append(make());
  });
  return node;
}

/** Return a list of named values: entries of [name, ...values]. */
export function factList(entries, name = "") {
  return el("dl", { class: `facts ${name}`.trim() }, entries.map(([title, ...values]) =>
    el("div", {}, el("dt", {}, title), el("dd", {}, values))));
}

/** Return a remark that stands out; `kind` is "bad", "warn" or "". */
export function notice(kind, ...children) {
  return el("p", { class: `notice ${kind}`.trim() }, children);
}

/** Return what the marks of a chart mean: entries of [marks in 26 x 14 pixels, text]. */
export function legend(entries, name) {
  return el("ul", { class: "legend", "aria-label": "Legend" }, entries.map(([marks, text]) =>
    el("li", {}, svg("svg", { viewBox: "0 0 26 14", class: `${name} sample`, "aria-hidden": "true" }, marks), text)));
}
