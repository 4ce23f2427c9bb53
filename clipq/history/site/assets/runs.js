// The recorded runs: when, of which commit, with which outcome, in which environment.
function runsPage(parts, query, turn) {
  if (parts.length) return runPage(parts.join("/"));
  document.title = "Runs · clipq trends";
  const box = el("div");
  const state = { find: "", ...Object.fromEntries(query) };
  const stepsOf = new Map();
  for (const step of site.steps) stepsOf.set(step.run.at, (stepsOf.get(step.run.at) || 0) + 1);
  const draw = () => {
    const shown = site.runs.filter((run) => matches(`${run.number} ${run.sha} ${run.subject} ${run.branch} ${run.started}`.toLowerCase(), state.find)).reverse();
    box.replaceChildren(listing({ caption: "Runs, newest first", items: shown, columns: [
      { title: "Run", cell: runLink }, { title: "Date", cell: (run) => day(run.started) },
      { title: "Outcome", cell: outcome }, { title: "Commit", cell: commit },
      { title: "Subject", cell: (run) => el("span", { class: "subject" }, run.subject) },
      { title: "Branch", cell: (run) => run.branch || "–" },
      { title: "Blocking", number: true, cell: (run) => number(blockingCount(run)) },
      { title: "Cases", number: true, cell: (run) => number(run.cases) },
      { title: "Steps", number: true, cell: (run) => (stepsOf.has(run.at) ? el("a", { href: addressOf("steps", [], { run: run.number }) }, number(stepsOf.get(run.at))) : "–") },
    ] }));
  };
  draw();
  return el("div", {}, el("h1", {}, "Runs"),
    el("div", { class: "toolbar" }, searchField("Find commit, subject, branch, date", state.find, (find) => { state.find = find; turn({ find }, { redraw: false }); draw(); })), box);
}

function outcome(run) {
  return el("span", { class: `verdict v-${run.passed ? "pass" : "fail"}` },
    el("span", { class: "symbol", "aria-hidden": "true" }, run.passed ? "✓" : "✕"), el("span", { class: "word" }, run.passed ? "passed" : "failed"));
}

function blockingCount(run) {
  const blocking = site.blocks.get(run.policy) || site.blocks.get("release");
  return run.counts.reduce((sum, amount, verdict) => sum + (blocking[verdict] ? amount : 0), 0);
}

function runPage(name) {
  const run = site.runs.find((found) => String(found.number) === name);
  if (!run) return missingPage(`There is no run ${name} in this site.`);
  document.title = `Run ${run.number} · clipq trends`;
  const before = site.runs[run.at - 1], after = site.runs[run.at + 1];
  const known = new Map(before ? before.environment : []);
  const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const steps = site.steps.filter((step) => step.run === run);
  const shown = site.verdicts.map((verdict, at) => [verdict, run.counts[at]]).filter(([, amount]) => amount);
  return el("div", {},
    el("nav", { class: "crumbs", "aria-label": "Where this is" }, el("a", { href: addressOf("runs") }, "Runs"),
      el("span", { class: "beside" }, before ? el("a", { href: addressOf("runs", [before.number]), rel: "prev" }, "← previous") : null,
        after ? el("a", { href: addressOf("runs", [after.number]), rel: "next" }, "next →") : null)),
    el("h1", {}, `Run ${run.number} `, outcome(run)),
    el("dl", { class: "facts" }, fact("started", moment(run.started)), fact("commit", commit(run)), fact("subject", run.subject || "–"),
      fact("branch", run.branch || "–"), fact("policy", run.policy), fact("cases", number(run.cases)), fact("record", el("code", {}, run.id.slice(0, 16)))),
    shares(shown),
    el("ul", { class: "counts" }, shown.map(([verdict, amount]) => el("li", {}, verdictLabel(verdict), " ", el("b", {}, number(amount))))),
    el("h2", {}, "Steps that start here"),
    steps.length ? listing({ caption: `Steps that start at run ${run.number}`, columns: STEP_COLUMNS, items: steps, rows: 50 }) : el("p", { class: "quiet" }, "None."),
    el("h2", {}, "Environment"),
    run.environment.length ? listing({ caption: "Environment", rows: 200, items: run.environment, columns: [
      { title: "What", cell: ([what]) => el("code", {}, what) }, { title: "Value", cell: ([, value]) => value },
      { title: "", cell: ([what, value]) => (before && known.get(what) !== value ? el("span", { class: "tag" }, known.has(what) ? `was ${known.get(what)}` : "new") : "") },
    ] }) : el("p", { class: "quiet" }, "Not recorded."));
}
