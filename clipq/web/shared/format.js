// Numbers, amounts and times as readers want them.

/** Return a number as a reader wants it: four significant digits, a real minus, "–" for none. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return minus(value.toLocaleString("en"));
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return minus(value.toExponential(2));
  return minus(String(Number(value.toPrecision(4))));
}

export function signed(value) {
  return value > 0 ? `+${number(value)}` : number(value);
}

/** Return a loss in units of its margin, "2.31×"; "" where there is no margin. */
export function times(value) {
  if (value === null || !Number.isFinite(value)) return "";
  const size = Math.abs(value);
  return `${minus(size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2))}×`;
}

export function minus(text) {
  return text.replaceAll("-", "\u2212");
}

export function count(amount, one, many = `${one}s`) {
  return `${amount.toLocaleString("en")} ${amount === 1 ? one : many}`;
}

export function percent(share) {
  return typeof share === "number" ? `${(100 * share).toFixed(1)} %` : "–";
}

export function megabytes(bytes) {
  return typeof bytes === "number" ? `${number(Number((bytes / 1e6).toPrecision(3)))} MB` : "–";
}

export function duration(seconds) {
  if (typeof seconds !== "number") return "";
  if (seconds < 90) return `${number(Number(seconds.toPrecision(2)))} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** Return "2025-01-01 00:00 UTC" of an ISO 8601 time; what is no time stays as it is. */
export function moment(text) {
  const found = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*(Z|\+00:00)$/.exec(text);
  return found ? `${found[1]} ${found[2]} UTC` : text;
}

/** Return the day of an ISO 8601 time. */
export function day(text) {
  return /^\d{4}-\d\d-\d\dT/.test(text) ? text.slice(0, 10) : text || "–";
}

/** Return which values of a metric are better, "" where its direction says nothing. */
export function better(direction) {
  const wishes = new Map([["lower", "lower"], ["higher", "higher"], ["zero", "nearer to zero"]]);
  return wishes.has(direction) ? `${wishes.get(direction)} is better` : "";
}

/** Return anything of the record's evidence as text. */
export function plainText(value) {
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
