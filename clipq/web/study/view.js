// What the reader of a study looks at.
import { addressState } from "../shared/address.js";

export const NO_CHOICE = { model: "", method: "", kind: "", bits: "", towers: "", find: "" };
const address = addressState([...Object.keys(NO_CHOICE), "sort", "columns", "layout", "metric", "shown", "cell", "claim",
  "x", "y", "range", "cost", "kept", "for", "margins", "pays", "most", "front"], ["cell", "claim"]);
export const view = address.state;
export const viewAddress = address.address;
export const look = address.go;
export const onView = address.onState;
