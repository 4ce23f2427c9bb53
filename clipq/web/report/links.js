import { el } from "../shared/elements.js";
import { revealCase } from "./cases.js";
import { go, state, stateAddress } from "./state.js";

/** Return a link to a case: opens it here, keeps what else is open, and can be copied as an address. */
export function caseLink(item, ...children) {
  return el("a", {
    href: stateAddress({ case: item.id }), onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      if (state.case === item.id) revealCase(item);
      else go({ case: item.id });
    },
  }, children);
}
