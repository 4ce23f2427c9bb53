// Addresses after "#" choose the page, so that it survives a reload and can be sent to somebody else.
import { el } from "../shared/elements.js";
import { caseName } from "../shared/verdicts.js";
import { site } from "./model.js";

/** Return what the address says: a page, the parts of what it shows, and what is chosen on it. */
export function readAddress() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [page = "", ...parts] = path.split("/").map(decodePart);
  return { page, parts, query: new URLSearchParams(query) };
}

export function pageAddress(page, parts = [], query = {}) {
  const path = (page ? [page, ...parts] : []).map((part) => encodePart(String(part)));
  const values = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return `#/${path.join("/")}${values.size ? `?${values}` : ""}`;
}

/** Change what the address says after "?". */
export function keepInAddress(values) {
  const { page, parts, query } = readAddress();
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  history.replaceState(null, "", pageAddress(page, parts, Object.fromEntries(query)));
}

function decodePart(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function encodePart(text) {
  return encodeURIComponent(text).replace(/%(3A|2C|3D|2B|40)/g, (code) => decodeURIComponent(code));
}

export function caseAddress(item) {
  return pageAddress("case", item.id.split("/"));
}

export function pairAddress(pair) {
  return pageAddress("pair", [pair.model, ...pair.quantizer.split("/")]);
}

export function casePageLink(item, { short = false } = {}) {
  return el("a", { href: caseAddress(item), class: "name" }, short ? el("b", {}, item.key) : caseName(item));
}

export function runLink(run) {
  return el("a", { href: pageAddress("runs", [run.number]), class: "run" }, `run ${run.number}`);
}

/** A commit's short hash, linked where the site knows where commits can be looked at. */
export function commitLink(run) {
  if (!run.sha) return el("span", { class: "quiet" }, "no commit");
  const short = el("code", {}, run.sha.slice(0, 8));
  const dirty = run.dirty ? el("span", { class: "quiet", title: "with uncommitted changes" }, "+") : null;
  if (!site.link || !/^[0-9a-f]{7,64}$/i.test(run.sha)) return el("span", { class: "commit" }, short, dirty);
  const href = site.link[0] + run.sha + site.link[1];
  if (!/^https?:\/\//i.test(href)) return el("span", { class: "commit" }, short, dirty);
  return el("a", { href, class: "commit", rel: "noopener noreferrer external", title: run.subject || null }, short, dirty);
}

/** The commits among which a change must have happened. */
export function commitRange(step) {
  return el("span", { class: "range" }, commitLink(step.last), " … ", commitLink(step.run));
}
