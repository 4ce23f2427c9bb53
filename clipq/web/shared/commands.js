import { copyButton } from "./controls.js";
import { el } from "./elements.js";

/** Return commands to run next, each with a button that copies it. */
export function commandList(texts) {
  return el("ul", { class: "commands" }, texts.map((text) => el("li", {}, el("code", {}, text), copyButton("Copy", () => text))));
}
