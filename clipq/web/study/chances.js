// The normal distribution and Student's, of whole degrees of freedom: quantiles and draws.

const KNOWN = new Map();

/** Return the probability that a standard normal number is below `z`. */
function normalBelow(z) {
  const size = Math.abs(z);
  let tail = 0;
  if (size < 3) { // the series around 0
    let term = size, sum = size;
    for (let n = 1; Math.abs(term) > 1e-17 * sum; n += 1) {
      term *= (size * size) / (2 * n + 1);
      sum += term;
    }
    tail = 0.5 - sum * Math.exp((-size * size) / 2) / Math.sqrt(2 * Math.PI);
  } else { // Laplace's continued fraction
    let fraction = 0;
    for (let n = 60; n > 0; n -= 1) fraction = n / (size + fraction);
    tail = Math.exp((-size * size) / 2) / Math.sqrt(2 * Math.PI) / (size + fraction);
  }
  return z > 0 ? 1 - tail : tail;
}

/** Return the probability that Student's t is below `t` (Abramowitz and Stegun 26.7.3 and 26.7.4). */
function studentBelow(t, freedom) {
  const angle = Math.atan(t / Math.sqrt(freedom)), cosine = Math.cos(angle), odd = freedom % 2 === 1;
  let term = odd ? cosine : 1, sum = freedom > 1 ? term : 0;
  for (let n = odd ? 3 : 2; n < freedom; n += 2) {
    term *= ((n - 1) / n) * cosine * cosine;
    sum += term;
  }
  const share = odd ? (2 / Math.PI) * (angle + Math.sin(angle) * sum) : Math.sin(angle) * sum;
  return (1 + share) / 2;
}

/** Return the number that leaves `tail` below it: of the normal distribution, or of Student's. */
export function quantileOf(tail, freedom = Infinity) {
  const key = `${tail} ${freedom}`;
  if (!KNOWN.has(key)) {
    const below = (value) => (freedom === Infinity ? normalBelow(value) : studentBelow(value, freedom));
    let low = -1, high = 0;
    while (below(low) > tail) low *= 2;
    for (let step = 0; step < 80; step += 1) {
      const middle = (low + high) / 2;
      if (below(middle) < tail) low = middle;
      else high = middle;
    }
    KNOWN.set(key, (low + high) / 2);
  }
  return KNOWN.get(key);
}

/** Return draws of the normal distribution and of Student's, the same ones for the same seed. */
export function randomNumbers(seed) {
  let state = seed >>> 0, spare = null;
  const uniform = () => { // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  const normal = () => { // Box and Muller's
    if (spare !== null) {
      const kept = spare;
      spare = null;
      return kept;
    }
    const radius = Math.sqrt(-2 * Math.log(uniform())), angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
  const student = (freedom) => {
    let squares = 0;
    for (let at = 0; at < freedom; at += 1) squares += normal() ** 2;
    return normal() / Math.sqrt(squares / freedom);
  };
  return { normal, student };
}
