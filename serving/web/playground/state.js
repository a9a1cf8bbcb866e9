// What the page shows, as one object. It stands in the URL's fragment, and comes back from there.

/**
 * @typedef {object} State
 * @property {string} model
 * @property {number | null} version  null: the one that is served
 * @property {bigint} first  the wall's first seed
 * @property {number | null} shuffle  which order of seeds; null: one after the other
 * @property {string} sort  what the wall's images are sorted by; empty: nothing
 * @property {boolean} only  only favourites
 * @property {string} tiles  their size: s, m or l
 * @property {number | null} label
 * @property {number} psi
 * @property {Map<string, number>} directions  units of each
 * @property {{from: bigint | null, layers: number[], truncation: number[] | null}} styles
 * @property {number[]} off  units that are off
 * @property {bigint | null} image  the seed that is shown large
 * @property {bigint[]} stars  favourites
 * @property {bigint[]} path  key seeds
 * @property {boolean} loop
 * @property {bigint[]} corners  of the lattice: four, or none
 * @property {bigint[]} terms  of A - B + C: three, or none
 * @property {number | null} against  a version to compare with
 */

export const MAX_SEED = 2n ** 64n - 1n;
const MOST_UNITS = 10;
const MOST_LISTED = 256;

/** @returns {State} */
export const initial = () => ({
  model: "", version: null, first: 0n, shuffle: null, sort: "", only: false, tiles: "m",
  label: null, psi: 1, directions: new Map(), styles: noStyles(), off: [],
  image: null, stars: [], path: [], loop: false, corners: [], terms: [], against: null,
});

/** @returns {State["styles"]} */
export const noStyles = () => ({ from: null, layers: [], truncation: null });

/** What an image depends on beside its seed; where one of these changes, every image does. */
export const LOOK = ["model", "version", "label", "psi", "directions", "styles", "off"];

/** @param {string} text @returns {bigint | null} a seed, or null where it is none */
export function seedOf(text) {
  if (!/^\d{1,20}$/.test(text)) return null;
  const seed = BigInt(text);
  return seed <= MAX_SEED ? seed : null;
}

/** A key of a direction as the parameter of a URL. @param {string} key */
export const parameter = (key) => (/^\d+$/.test(key) ? `d${key}` : `d.${key}`);

/** The parameters of what an image's URL says of its styles and units, which are the page's too.
 * @param {State} state @returns {[string, string][]} */
export function partsOf({ directions, styles, off }) {
  /** @type {[string, string][]} */
  const found = [...directions].map(([key, amount]) => [parameter(key), String(amount)]);
  if (styles.from !== null && styles.layers.length) {
    found.push(["styles.from", String(styles.from)], ["styles.layers", styles.layers.join()]);
  }
  if (styles.truncation) found.push(["styles.truncation", styles.truncation.join()]);
  if (off.length) found.push(["units_off", off.join()]);
  return found;
}

/** @param {Iterable<[string, any]>} pairs */
export const queryOf = (pairs) =>
  new URLSearchParams([...pairs].map(([name, value]) => [name, String(value)]))
    .toString()
    .replaceAll("%2C", ",");

/** @param {State} state @returns {string} */
export function toText(state) {
  /** @type {[string, any][]} */
  const pairs = [["model", state.model]];
  if (state.version !== null) pairs.push(["version", state.version]);
  pairs.push(["seed", state.first]);
  if (state.label !== null) pairs.push(["label", state.label]);
  if (state.psi !== 1) pairs.push(["psi", state.psi]);
  pairs.push(...partsOf(state));
  if (state.shuffle !== null) pairs.push(["shuffle", state.shuffle]);
  if (state.sort) pairs.push(["sort", state.sort]);
  if (state.only) pairs.push(["only", 1]);
  if (state.tiles !== "m") pairs.push(["tiles", state.tiles]);
  if (state.image !== null) pairs.push(["image", state.image]);
  for (const name of /** @type {const} */ (["stars", "path", "corners", "terms"])) {
    if (state[name].length) pairs.push([name, state[name].join()]);
  }
  if (state.loop) pairs.push(["loop", 1]);
  if (state.against !== null) pairs.push(["against", state.against]);
  return queryOf(pairs);
}

/** Reads what `toText` wrote; what can't be read is as at the beginning.
 * @param {string} text @returns {State} */
export function fromText(text) {
  const state = initial();
  const fields = new URLSearchParams(text);
  const get = (/** @type {string} */ name) => fields.get(name) ?? "";
  const whole = (/** @type {string} */ name) => (/^\d{1,9}$/.test(get(name)) ? Number(get(name)) : null);
  state.model = get("model");
  state.version = whole("version");
  state.first = seedOf(get("seed")) ?? 0n;
  state.label = whole("label");
  const psi = Number(fields.get("psi") ?? 1);
  state.psi = psi >= 0 && psi <= 2 ? psi : 1;
  for (const [name, value] of fields) {
    const key = /^d(\d+)$/.exec(name)?.[1] ?? /^d\.(.+)$/.exec(name)?.[1];
    const amount = Number(value);
    if (key !== undefined && amount && Math.abs(amount) <= MOST_UNITS) state.directions.set(key, amount);
  }
  const layers = numbers(get("styles.layers"));
  const from = seedOf(get("styles.from"));
  if (from !== null && layers.length) Object.assign(state.styles, { from, layers });
  const truncation = get("styles.truncation").split(",").map(Number);
  if (get("styles.truncation") && truncation.every((each) => each >= 0 && each <= 2)) {
    state.styles.truncation = truncation;
  }
  state.off = numbers(get("units_off"));
  state.shuffle = whole("shuffle");
  state.sort = get("sort");
  state.only = get("only") === "1";
  state.tiles = ["s", "l"].includes(get("tiles")) ? get("tiles") : "m";
  state.image = seedOf(get("image"));
  for (const name of /** @type {const} */ (["stars", "path", "corners", "terms"])) {
    state[name] = seeds(get(name));
  }
  if (state.corners.length !== 4) state.corners = [];
  if (state.terms.length !== 3) state.terms = [];
  state.loop = get("loop") === "1";
  state.against = whole("against");
  return state;
}

/** @param {string} text */
const numbers = (text) => text.split(",").filter((part) => /^\d{1,6}$/.test(part)).map(Number);

/** @param {string} text */
const seeds = (text) =>
  /** @type {bigint[]} */ (text.split(",").map(seedOf).filter((seed) => seed !== null)).slice(0, MOST_LISTED);

/** The state, and who is told of its changes. */
export class Store {
  constructor() {
    this.value = initial();
    /** @type {((changed: Set<string>, settled: boolean) => void)[]} */
    this.listeners = [];
    this.waiting = 0;
  }

  /** settled: false while a slider is dragged. @param {Partial<State>} fields */
  change(fields, settled = true) {
    Object.assign(this.value, fields);
    const changed = new Set(Object.keys(fields));
    for (const listener of this.listeners) listener(changed, settled);
    // Browsers refuse more than some changes of the URL a second.
    clearTimeout(this.waiting);
    if (settled) this.#write();
    else this.waiting = window.setTimeout(() => this.#write(), 250);
  }

  /** Takes what fits the model, before anyone is told of it. @param {Partial<State>} fields */
  fit(fields) {
    Object.assign(this.value, fields);
    this.#write();
  }

  #write() {
    const text = `#${toText(this.value)}`;
    if (location.hash !== text) history.replaceState(null, "", text);
  }

  /** Takes another whole state. @param {State} state */
  replace(state) {
    this.change(state);
  }
}
