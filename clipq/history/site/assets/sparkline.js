// Trends the size of a word.
const SPARK = { width: 150, height: 30, edge: 3 };

/** The loss over all runs against the margin, its steps as ticks, the latest verdict at its end. */
function lossSpark(item) {
  const box = el("span", { class: "spark" });
  history_of(item).then((found) => box.replaceChildren(drawLoss(item, found)), () => box.replaceChildren("not loaded"));
  return box;
}

function drawLoss(item, { loss }) {
  const values = loss.filter(Number.isFinite);
  if (!values.length) return el("span", { class: "quiet" }, "no loss");
  const low = Math.min(0, ...values), high = Math.max(item.margin ?? 0, 0, ...values);
  const { x, y } = sparkScale(loss.length, low, high);
  const end = loss.findLastIndex(Number.isFinite);
  const marks = item.steps.map((step) => svg("path", {
    class: `tick ${step.worse ? "worse" : "better"}`, d: `M${x(step.run.at)} 0V${SPARK.height}`,
  }));
  const label = `Loss over ${count(loss.length, "run")}: ${number(round(values[0]))} first, `
    + `${number(round(values[values.length - 1]))} last; ${count(item.steps.length, "step")}`;
  return svg("svg", { class: "sparkline", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, role: "img", "aria-label": label },
    marks,
    item.margin === null ? null : svg("path", { class: "limit", d: `M0 ${y(item.margin)}H${SPARK.width}` }),
    svg("path", { class: "zero", d: `M0 ${y(0)}H${SPARK.width}` }),
    svg("path", { class: "trend", d: line(loss, x, y) }),
    svg("circle", { class: `end v-${item.verdict}`, cx: x(end), cy: y(loss[end]), r: 2.6 }));
}

/** How many cases of a pair did not block, run by run. */
function passedSpark(pair) {
  const share = [];
  pair.passed.forEach((amount, at) => {
    // A run that left the pair out says nothing new about it.
    share.push(pair.present[at] ? amount / pair.present[at] : at ? share[at - 1] : NaN);
  });
  const values = share.filter(Number.isFinite);
  const low = Math.min(1, ...values);
  const { x, y } = sparkScale(share.length, low > 0.9 ? 0.9 : low - 0.05, 1);
  return svg("svg", { class: "sparkline", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "area", d: `${line(share, x, y)}V${SPARK.height}H${x(share.findIndex(Number.isFinite))}Z` }),
    svg("path", { class: "trend", d: line(share, x, y) }));
}

function sparkScale(runs, low, high) {
  const { width, height, edge } = SPARK;
  const span = high - low || 1;
  return {
    x: (at) => fixed(edge + (runs < 2 ? 0.5 : at / (runs - 1)) * (width - 2 * edge)),
    y: (value) => fixed(height - edge - ((value - low) / span) * (height - 2 * edge)),
  };
}

/** Return a path through the finite values, broken at gaps; equal neighbours need no points. */
function line(values, x, y) {
  let path = "", open = false;
  values.forEach((value, at) => {
    if (!Number.isFinite(value)) { open = false; return; }
    const same = values[at - 1] === value && values[at + 1] === value;
    if (!open) path += `M${x(at)} ${y(value)}`;
    else if (!same) path += `L${x(at)} ${y(value)}`;
    // A value between two gaps is a dot: a line without length, drawn by its round ends.
    if (!open && !Number.isFinite(values[at + 1])) path += "h0";
    open = true;
  });
  return path;
}

function fixed(value) {
  return Math.round(value * 10) / 10;
}

function round(value) {
  return Number(value.toPrecision(4));
}
