/** Return a number as a reader wants it: four significant digits, a real minus, "–" for none. */
function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return minus(value.toLocaleString("en"));
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return minus(value.toExponential(2));
  return minus(String(Number(value.toPrecision(4))));
}

function signed(value) {
  return value > 0 ? `+${number(value)}` : number(value);
}

/** Return a loss in units of its margin, "2.31×"; "" where there is no margin. */
function times(value) {
  if (value === null || !Number.isFinite(value)) return "";
  const size = Math.abs(value);
  return `${minus(size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2))}×`;
}

/**
 * Return a value of a case with as many decimals as its margin can tell apart: two digits beyond the
 * margin's first. Numbers in one unit then line up, and noise is not read as news.
 */
function inUnit(item, value) {
  if (value === null || !item.margin) return number(value);
  const decimals = Math.max(0, Math.min(8, 2 - Math.floor(Math.log10(Math.abs(item.margin)))));
  return minus(value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
}

function lossText(item) {
  return item.loss > 0 ? `+${inUnit(item, item.loss)}` : inUnit(item, item.loss);
}

function minus(text) {
  return text.replace("-", "\u2212");
}

function count(amount, one, many = `${one}s`) {
  return `${amount.toLocaleString("en")} ${amount === 1 ? one : many}`;
}

function percent(share) {
  return typeof share === "number" ? `${(100 * share).toFixed(1)} %` : "–";
}

function megabytes(bytes) {
  return typeof bytes === "number" ? `${number(Number((bytes / 1e6).toPrecision(3)))} MB` : "–";
}

function duration(seconds) {
  if (typeof seconds !== "number") return "";
  if (seconds < 90) return `${number(Number(seconds.toPrecision(2)))} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** Return "2025-01-01 00:00 UTC" of an ISO 8601 time; what is no time stays as it is. */
function moment(text) {
  const found = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*(Z|\+00:00)$/.exec(text);
  return found ? `${found[1]} ${found[2]} UTC` : text;
}

/** Return anything of the record's evidence as text. */
function plainText(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.map(plainText).join(", ") : "–";
  if (typeof value === "object") {
    const parts = Object.entries(value).map(([key, item]) => `${key} ${plainText(item)}`);
    return parts.length ? parts.join(", ") : "–";
  }
  return String(value);
}
