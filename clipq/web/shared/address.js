// What the reader looks at lives in the address after "#", so that it survives a reload and can be
// sent to somebody else. Opening something is a step that back can undo; typing a filter is not.

/**
 * Return the state that an address holds: `{ state, address, go, onState }`.
 * @param {string[]} keys what the state has; each is a text, "" for none
 * @param {string[]} steps those whose change is a step back can undo
 */
export function addressState(keys, steps) {
  const listeners = [];
  /** @type {Record<string, string>} */
  const current = {};

  const read = () => {
    const found = Object.fromEntries(keys.map((key) => [key, ""]));
    for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
      if (keys.includes(key)) found[key] = value;
    }
    return found;
  };
  /** Return the address of this page with another state. */
  const address = (values) => {
    const parts = new URLSearchParams();
    for (const key of keys) if (values[key]) parts.set(key, values[key]);
    return `#${parts}`;
  };
  const tell = (before) => { for (const listener of listeners) listener(before); };
  /** Change the state; listeners are told what it was before. */
  const go = (change) => {
    const before = { ...current };
    Object.assign(current, change);
    if (keys.every((key) => before[key] === current[key])) return;
    const step = steps.some((key) => before[key] !== current[key]);
    history[step ? "pushState" : "replaceState"](null, "", address(current));
    tell(before);
  };
  const returnToAddress = () => {
    const before = { ...current };
    Object.assign(current, read());
    tell(before);
  };

  Object.assign(current, read());
  addEventListener("popstate", returnToAddress);
  addEventListener("hashchange", () => {
    if (address(read()) !== address(current)) returnToAddress();
  });
  return { state: current, address, go, onState: (listener) => { listeners.push(listener); } };
}
