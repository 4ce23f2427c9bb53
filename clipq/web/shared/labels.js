// Names beside marks, placed so that none covers another name, a mark or an interval.

const LINE = 13; // height of a name, in pixels
const LETTER = 7; // width of a letter, rather too much
const REACHES = [9, 18, 30, 44, 60, 80];
/** @type {[number, number][]} */
const DIRECTIONS = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [1, 1], [-1, -1], [-1, 1]];

/** Return what a mark covers: `{ x, y }` its middle, `top` and `bottom` the ends of its interval. */
export function footprint({ x, y, top = y, bottom = y }) {
  return [box(x - 6, x + 6, y - 6, y + 6), box(x - 4, x + 4, Math.min(top, y) - 1, Math.max(bottom, y) + 1)];
}

/**
 * Return where the name of each mark goes: `{ x, y, anchor, from }`, null where there is no room; `from`
 * is where a line to it begins, null where it stands beside its mark. The first names choose first.
 * @param {any[]} marks `{ x, y, text }`, the most important first
 * @param {any[]} covered boxes that names keep off
 * @param {any} bounds the box that names stay inside of
 */
export function placeNames(marks, covered, bounds) {
  const taken = [...covered];
  return marks.map((mark) => {
    for (const reach of REACHES) {
      for (const direction of DIRECTIONS) {
        const found = at(mark, direction, reach);
        const inside = found.box.left >= bounds.left && found.box.right <= bounds.right
          && found.box.top >= bounds.top && found.box.bottom <= bounds.bottom;
        if (!inside || taken.some((other) => overlap(found.box, other))) continue;
        taken.push(found.box);
        return { ...found, from: reach > REACHES[0] ? { x: mark.x, y: mark.y } : null };
      }
    }
    return null;
  });
}

function at({ x, y, text }, [across, down], reach) {
  const width = LETTER * text.length, slant = across && down ? 0.7 : 1;
  const anchor = across > 0 ? "start" : across < 0 ? "end" : "middle";
  const end = x + across * reach * slant, middle = y + down * (reach + (across ? 0 : LINE / 2)) * slant;
  const left = across > 0 ? end : across < 0 ? end - width : end - width / 2;
  return { x: end, y: middle + 4, anchor, box: box(left, left + width, middle - LINE / 2, middle + LINE / 2) };
}

function box(left, right, top, bottom) {
  return { left, right, top, bottom };
}

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}
