import { details, el, factList, section } from "../shared/elements.js";
import { count, duration, megabytes, percent, plainText } from "../shared/format.js";
import { table } from "../shared/tables.js";
import { evidence, run } from "./record.js";

/** What the numbers rest on: everything that identifies this run, at the end. */
export function provenance() {
  const box = section("provenance", "Provenance");
  const { id, commit, statistics, versions, selection } = run;
  box.append(factBlock("This run", {
    "record id": id, policy: run.policy, started: run.started || null, "planned cases": run.planned,
    "wall time": duration(run.timings.seconds) || null,
    commit: commit.sha || null, "commit date": commit.date || null, branch: commit.branch || null,
    subject: commit.subject || null, "uncommitted changes": typeof commit.dirty === "boolean" ? commit.dirty : null,
    selection: Object.keys(selection).length ? selection : null,
  }));
  if (run.correction) box.append(el("p", {}, run.correction));
  if (Object.keys(run.inputs).length) box.append(evidenceTable("Inputs", run.inputs));
  if (Object.keys(statistics).length) box.append(factBlock("Statistics", statistics));
  for (const [kind, title] of [["models", "Models"], ["baselines", "Baselines"], ["probes", "Probes"],
    ["quantizers", "Quantizers"], ["tunings", "Tunings"], ["environments", "Environments"]]) {
    const found = evidence[kind] || {};
    if (Object.keys(found).length) box.append(evidenceTable(title, found));
  }
  if (Object.keys(versions).length) box.append(factBlock("Versions", versions));
  return box;
}

function factBlock(title, values) {
  const known = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return el("div", { class: "block" }, el("h3", {}, title), factList(known.map(([name, value]) =>
    [name.replaceAll("_", " "), name === "seed" ? String(value) : short(value)]), "listing"));
}

// What identifies an entry or says how much of a model it covers stands first.
const LEADING = ["source", "file", "role", "weights_sha256", "method_version", "code_sha256", "share", "weight_bits",
  "bytes", "float_bytes"];

/** Return one row per entry and one column per property; hashes are cut, pointing shows them whole. */
function evidenceTable(title, entries) {
  const found = new Set(Object.values(entries).flatMap((entry) => Object.keys(entry || {})));
  const names = [...new Set([...LEADING.filter((name) => found.has(name)), ...found])];
  const columns = [{ title: title.slice(0, -1) }, ...names.map((name) => ({
    title: name.replaceAll("_", " "), number: Object.values(entries).every((entry) => entry[name] === undefined || typeof entry[name] === "number"),
  }))];
  const rows = Object.entries(entries).map(([key, entry]) => [el("code", {}, key),
    ...names.map((name) => (name === "share" ? percent(entry[name]) : /bytes$/.test(name) ? megabytes(entry[name]) : short(entry[name])))]);
  const content = () => table({ caption: `${title} of this run`, columns, rows, quiet: true });
  const heading = el("h3", {}, title);
  if (rows.length <= 12) return el("div", { class: "block" }, heading, content());
  return el("div", { class: "block" }, heading, details(count(rows.length, "entry", "entries"), content()));
}

function short(value) {
  if (typeof value === "string" && /^[0-9a-f]{40,}$/.test(value)) {
    return el("code", { class: "hash", title: value, tabindex: "0" }, value);
  }
  if (value && typeof value === "object" && Object.keys(value).length > 3) {
    return details(count(Object.keys(value).length, "entry", "entries"), el("p", { class: "wrap" }, plainText(value)));
  }
  return plainText(value);
}
