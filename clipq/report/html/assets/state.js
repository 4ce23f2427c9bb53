// What the reader looks at lives in the address after "#", so that it survives a reload and can be
// sent to somebody else. Opening a case or a pair is a step back can undo; typing a filter is not.

const LISTENERS = [];
const KEYS = ["case", "pair", "figures", "model", "quantizer", "probe", "metric", "verdict", "find", "sort"];
let state = readState();

function readState() {
  const found = Object.fromEntries(KEYS.map((key) => [key, ""]));
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    if (KEYS.includes(key)) found[key] = value;
  }
  return found;
}

/** Return the address of this page with another state. */
function addressOf(values) {
  const parts = new URLSearchParams();
  for (const key of KEYS) if (values[key]) parts.set(key, values[key]);
  return `#${parts}`;
}

/** Change the state; listeners are told what it was before. */
function go(change) {
  const before = state;
  state = { ...state, ...change };
  if (KEYS.every((key) => before[key] === state[key])) return;
  const step = before.case !== state.case || before.pair !== state.pair;
  history[step ? "pushState" : "replaceState"](null, "", addressOf(state));
  for (const listener of LISTENERS) listener(before);
}

function onState(listener) {
  LISTENERS.push(listener);
}

function returnToAddress() {
  const before = state;
  state = readState();
  for (const listener of LISTENERS) listener(before);
}

window.addEventListener("popstate", returnToAddress);
window.addEventListener("hashchange", () => {
  if (addressOf(readState()) !== addressOf(state)) returnToAddress();
});
