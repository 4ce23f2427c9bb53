// Numbers of a study: with as many decimals as their interval can tell apart.
import { minus, number } from "../shared/format.js";

const FORMATS = new Map();

/** Return how many decimals a number with this half-width deserves: two digits of it if it begins by 1 or 2, else one. */
function decimalsOf(half) {
  if (!(half > 0)) return null;
  const place = Math.floor(Math.log10(half));
  return Math.max(0, Math.min(6, (half / 10 ** place < 3 ? 1 : 0) - place));
}

function fixed(value, decimals) {
  // Made once: to make one takes longer than to use it a hundred times.
  if (!FORMATS.has(decimals)) FORMATS.set(decimals, new Intl.NumberFormat("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
  return minus(FORMATS.get(decimals).format(value));
}

export function withDecimals(value, half) {
  const decimals = decimalsOf(half);
  return decimals === null || value === null ? number(value) : fixed(value, decimals);
}

export function changeText(value, half) {
  return value > 0 ? `+${withDecimals(value, half)}` : withDecimals(value, half);
}

/** Return "[−0.012, +0.003]", "" where nothing is known of it. */
export function intervalText(low, high, say = changeText) {
  if (low === null || high === null || low === undefined) return "";
  const half = (high - low) / 2;
  return `[${say(low, half)}, ${say(high, half)}]`;
}

/** Return a cell in words: its change with the interval, or its value where FP32 has none. */
export function cellText(cell) {
  if (!cell) return "–";
  const half = cell.low === null ? 0 : (cell.high - cell.low) / 2;
  const say = cell.compared ? changeText : withDecimals;
  return `${say(cell.compared ? cell.change : cell.value, half)} ${intervalText(cell.low, cell.high, say)}`.trim();
}
