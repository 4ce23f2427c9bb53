// What the reader looks at lives in the address after "#", so that it survives a reload and can be
// sent to somebody else. Opening a case or a pair is a step back can undo; typing a filter is not.
import { jump } from "../shared/controls.js";

const LISTENERS = [];
export const NO_FILTER = { model: "", quantizer: "", probe: "", metric: "", verdict: "", find: "" };
const KEYS = ["case", "pair", "figures", ...Object.keys(NO_FILTER), "sort"];
export let state = readState();

function readState() {
  const found = Object.fromEntries(KEYS.map((key) => [key, ""]));
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    if (KEYS.includes(key)) found[key] = value;
  }
  return found;
}

/** Return the address of this page with another state. */
export function stateAddress(values) {
  const parts = new URLSearchParams();
  for (const key of KEYS) if (values[key]) parts.set(key, values[key]);
  return `#${parts}`;
}

/** Change the state; listeners are told what it was before. */
export function go(change) {
  const before = state;
  state = { ...state, ...change };
  if (KEYS.every((key) => before[key] === state[key])) return;
  const step = before.case !== state.case || before.pair !== state.pair;
  history[step ? "pushState" : "replaceState"](null, "", stateAddress(state));
  for (const listener of LISTENERS) listener(before);
}

export function onState(listener) {
  LISTENERS.push(listener);
}

/** Show the list with these filters and no other. */
export function showCases(change) {
  go({ ...NO_FILTER, case: "", ...change });
  jump("cases");
}

export function showFigures(key) {
  go({ figures: key });
  jump("figures");
}

function returnToAddress() {
  const before = state;
  state = readState();
  for (const listener of LISTENERS) listener(before);
}

addEventListener("popstate", returnToAddress);
addEventListener("hashchange", () => {
  if (stateAddress(readState()) !== stateAddress(state)) returnToAddress();
});
