import { copyButton } from "./controls.js";
import { el } from "./elements.js";

/** Return commands to run next, each with a button that copies it. */
export function commandList(texts) {
  return el("ul", { class: "commands" }, texts.map((text) => el("li", {}, el("code", {}, text), copyButton("Copy", () => text))));
}

/** Return a word of a command line, quoted where a shell would read more into it. */
export function shellWord(text) {
  if (/^[\w./:=@%+,-]+$/.test(text)) return text;
  return `"${text.replace(/[\\"$`]/g, "\\$&")}"`;
}
