// Reads the texts that clipq/history/site/columns.py writes.
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const DIGIT_OF = new Map([...ALPHABET].map((letter, value) => [letter, value]));
const MISSING = 2 ** 31;

/** Return a column's numbers, times 10 ** exponent; NaN where a value is missing. */
export function unpack(text, exponent = 0) {
  const numbers = [];
  let value = 0, place = 1;
  for (let i = 1; i < text.length; i += 1) {
    const digit = DIGIT_OF.get(text[i]);
    value += (digit % 32) * place; // multiplied, not shifted: shifts end at 32 bits
    place *= 32;
    if (digit < 32) {
      numbers.push(value % 2 ? -(value + 1) / 2 : value / 2);
      value = 0;
      place = 1;
    }
  }
  const found = [];
  const repeated = text[0] === "=";
  let level = 0;
  for (let i = 0; i < numbers.length; i += repeated ? 2 : 1) {
    level += numbers[i];
    const shown = level === MISSING ? NaN : scaledBy(level, exponent);
    for (let left = repeated ? numbers[i + 1] : 0; left >= 0; left -= 1) found.push(shown);
  }
  return found;
}

/** Dividing by a power of ten gives the decimal number itself; multiplying by its inverse may not. */
function scaledBy(whole, exponent) {
  return exponent < 0 ? whole / 10 ** -exponent : whole * 10 ** exponent;
}
