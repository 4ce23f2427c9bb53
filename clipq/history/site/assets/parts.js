// Small parts of pages: links, labels, verdicts.

function addressOf(page, parts = [], query = {}) {
  const path = (page ? [page, ...parts] : []).map((part) => encode(String(part)));
  const values = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return `#/${path.join("/")}${values.size ? `?${values}` : ""}`;
}

function encode(text) {
  return encodeURIComponent(text).replace(/%(3A|2C|3D|2B|40)/g, (code) => decodeURIComponent(code));
}

function caseAddress(item) {
  return addressOf("case", item.id.split("/"));
}

function pairAddress(pair) {
  return addressOf("pair", [pair.model, ...pair.quantizer.split("/")]);
}

function caseLink(item, { short = false } = {}) {
  const [cell, key] = [`${item.model} / ${item.quantizer}`, el("b", {}, item.key)];
  return el("a", { href: caseAddress(item), class: "name" }, key,
    short ? null : [" ", el("span", { class: "quiet" }, cell)]);
}

function runLink(run) {
  return el("a", { href: addressOf("runs", [run.number]), class: "run" }, `run ${run.number}`);
}

/** A commit's short hash, linked where the site knows where commits can be looked at. */
function commit(run) {
  if (!run.sha) return el("span", { class: "quiet" }, "no commit");
  const short = el("code", {}, run.sha.slice(0, 8));
  const dirty = run.dirty ? el("span", { class: "quiet", title: "with uncommitted changes" }, "+") : null;
  if (!site.link || !/^[0-9a-f]{7,64}$/i.test(run.sha)) return el("span", { class: "commit" }, short, dirty);
  const href = site.link[0] + run.sha + site.link[1];
  if (!/^https?:\/\//i.test(href)) return el("span", { class: "commit" }, short, dirty);
  return el("a", { href, class: "commit", rel: "noopener noreferrer external", title: run.subject || null }, short, dirty);
}

/** The commits among which a change must have happened. */
function commitRange(step) {
  return el("span", { class: "range" }, commit(step.last), " … ", commit(step.run));
}

function day(text) {
  return /^\d{4}-\d\d-\d\dT/.test(text) ? text.slice(0, 10) : text || "–";
}

function verdictLabel(verdict) {
  if (!verdict) return el("span", { class: "quiet" }, "not run");
  return el("span", { class: `verdict v-${verdict}` },
    el("span", { class: "symbol", "aria-hidden": "true" }, VERDICTS.get(verdict)),
    el("span", { class: "word" }, verdict));
}

/** "▲ worse by 1.3×": direction as symbol and word, size in margins. */
function stepSize(step) {
  const word = step.worse ? "worse" : "better";
  const size = step.margins === null ? number(Math.abs(step.after - step.before)) : times(step.size);
  return el("span", { class: `move ${word}` },
    el("span", { "aria-hidden": "true" }, step.worse ? "▲" : "▼"), ` ${word} `, el("b", {}, size));
}

function stepNotes(step) {
  const notes = [];
  if (!step.confirmed) notes.push(el("span", { class: "tag", title: "fewer than three runs are at the new level so far" }, "unconfirmed"));
  if (step.reference !== null) {
    notes.push(el("span", { class: "tag", title: `FP32's value changed by ${signed(step.reference)} at the same place` }, "FP32 moved"));
  }
  return notes;
}

function shares(counts) {
  const bar = el("span", { class: "shares", "aria-hidden": "true" });
  for (const [verdict, amount] of counts) {
    const part = el("span", { class: `v-${verdict}` });
    part.style.flexGrow = amount;
    bar.append(part);
  }
  return bar;
}

/** A labelled search field; typing is told after a short pause. */
function searchField(label, value, onChange) {
  let waiting = 0;
  const field = el("input", { type: "search", id: "find", placeholder: label, "aria-label": label,
    autocomplete: "off", spellcheck: "false", "aria-keyshortcuts": "/" });
  field.value = value;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => onChange(field.value.trim()), 120);
  });
  return field;
}

/** Whether a text has every word that is looked for. */
function matches(text, find) {
  return find.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
