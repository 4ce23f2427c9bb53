// What the reader of a report looks at: the open case and pair, filters, order.
import { addressState } from "../shared/address.js";
import { jump } from "../shared/controls.js";

export const NO_FILTER = { model: "", quantizer: "", probe: "", metric: "", verdict: "", find: "" };
const held = addressState(["case", "pair", "figures", ...Object.keys(NO_FILTER), "sort"], ["case", "pair"]);
export const state = held.state;
export const stateAddress = held.address;
export const go = held.go;
export const onState = held.onState;

/** Show the list with these filters and no other. */
export function showCases(change) {
  go({ ...NO_FILTER, case: "", ...change });
  jump("cases");
}

export function showFigures(key) {
  go({ figures: key });
  jump("figures");
}
