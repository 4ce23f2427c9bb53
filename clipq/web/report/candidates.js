// One line per release candidate: may it ship, what does it cost, what is not decided.
import { details, el, section } from "../shared/elements.js";
import { count } from "../shared/format.js";
import { badge } from "../shared/verdicts.js";
import { run } from "./record.js";
import { go, stateAddress } from "./state.js";

const FIRST = 6;

/** Return the lines, worst first; of many candidates, the rest is folded away. */
export function candidateList() {
  const lines = run.candidates;
  if (!lines.length) return null;
  const rest = lines.slice(FIRST), blocked = rest.filter((line) => line.blocked).length;
  return section("candidates", "Candidates",
    el("p", { class: "quiet" }, "What each costs against FP32 on in-distribution images, and whether it may ship; the worst first."),
    listOf(lines.slice(0, FIRST)),
    rest.length ? details(`${count(rest.length, "more candidate")}, ${blocked.toLocaleString("en")} of them blocked`, listOf(rest)) : null);
}

/** Return the line of one candidate, without its name; "" where there is none. */
export function candidateText(key) {
  const line = run.candidates.find((found) => found.key === key);
  return line ? line.text : "";
}

function listOf(lines) {
  return el("ul", { class: "candidates" }, lines.map((line) => el("li", {},
    line.blocked ? badge("fail", "✕", "") : badge("pass", "✓", ""),
    el("span", { class: "wrap" }, pairLink(line.key), `: ${line.text}`))));
}

/** Return a link that opens the metrics of a candidate, and can be copied as an address. */
function pairLink(key) {
  return el("a", {
    href: stateAddress({ pair: key }), onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      go({ pair: key, figures: key });
    },
  }, el("code", {}, key));
}
