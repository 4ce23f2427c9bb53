// Axes: from values to places and back.

/** Return a linear scale whose domain is widened to whole ticks' neighbourhood. */
function scale(low, high, start, end) {
  const span = high - low || Math.abs(high) || 1;
  const [from, to] = high === low ? [low - span / 2, high + span / 2] : [low, high];
  const place = (value) => fixed(start + ((value - from) / (to - from)) * (end - start));
  return Object.assign(place, { from, to, value: (at) => from + ((at - start) / (end - start)) * (to - from) });
}

/** Return about `wanted` round values within a range. */
function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) {
    found.push(Number((at * step).toPrecision(12)));
  }
  return found;
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
