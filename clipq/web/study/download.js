// What is shown, as a file: made in the page, since nothing can be fetched.
import { announce } from "../shared/controls.js";
import { el } from "../shared/elements.js";

/** Return records (rows of cells, the first names them) as CSV: RFC 4180, with "" for null. */
function csvText(records) {
  const field = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    // A cell that a spreadsheet would take for a formula begins by an apostrophe, as it shows texts.
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return records.map((cells) => `${cells.map(field).join(",")}\r\n`).join("");
}

/** Return a button that saves `records()` as a file of this name. */
export function downloadButton(label, name, records) {
  return el("button", { type: "button", onclick: () => {
    const address = URL.createObjectURL(new Blob([csvText(records())], { type: "text/csv;charset=utf-8" }));
    const link = el("a", { href: address, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    announce(`${name} is saved`);
  } }, label);
}
