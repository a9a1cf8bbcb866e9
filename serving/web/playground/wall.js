// The wall: an endless grid of images, each with a URL of its own, loaded as they come into view.

import { at, button, element, lookOf } from "./elements.js";
import { again } from "./messages.js";
import { MEASURES, measured } from "./measures.js";
import { imagePath } from "./requests.js";
import { LOOK, MAX_SEED } from "./state.js";

const CHUNK = 64;
const MOST = 4096; // tiles at once; then the wall goes on from another seed
const SORTED = 256;
const MOST_PAUSE_S = 10;

/** The i-th seed of a shuffled order (SplitMix64, Steele et al. 2014), of 32 bits.
 * @param {number} order @param {number} i */
export function shuffled(order, i) {
  let x = ((BigInt(order) << 32n) + BigInt(i + 1) * 0x9e3779b97f4a7c15n) & MAX_SEED;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & MAX_SEED;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & MAX_SEED;
  return (x ^ (x >> 31n)) >> 32n;
}

export class Wall {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.grid = at("images");
    /** @type {bigint[]} */
    this.seeds = [];
    this.turn = 0;
    this.began = 0;
    /** @type {Set<any>} tiles whose image did not come */
    this.failed = new Set();
    this.attempt = 0;
    this.timer = 0;
    this.end = element("p", { id: "wall-end" });
    this.observer = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && this.#grow(),
      { root: at("wall"), rootMargin: "400px" },
    );
    at("wall").append(this.end);
    this.observer.observe(this.end);
    this.grid.addEventListener("click", (/** @type {any} */ event) => {
      const tile = event.target.closest("button");
      if (tile) app.choose(BigInt(tile.dataset.seed));
    });
    this.grid.addEventListener("keydown", (/** @type {any} */ event) => this.#key(event));
  }

  /** @param {Set<string>} changed @param {boolean} settled */
  update(changed, settled) {
    const has = (/** @type {string[]} */ names) => names.some((name) => changed.has(name));
    if (has(["tiles"])) this.grid.dataset.tiles = this.app.state.tiles;
    if (has(["model", "first", "shuffle", "only", "sort", "tiles"])) this.redraw();
    else if (this.app.state.only && changed.has("stars")) this.redraw();
    else if (settled && has(LOOK)) this.#reload();
    if (has(["image", "stars"])) this.#mark();
  }

  /** @param {number} i @returns {bigint | null} the seed at a place; null behind the last */
  seedAt(i) {
    const { only, stars, shuffle, first } = this.app.state;
    if (only) return stars[i] ?? null;
    if (shuffle !== null) return shuffled(shuffle, i);
    const seed = first + BigInt(i);
    return seed <= MAX_SEED ? seed : null;
  }

  /** Draws all anew. */
  redraw() {
    if (!this.app.model) return;
    const turn = (this.turn += 1);
    this.began = performance.now();
    this.failed.clear();
    this.seeds = [];
    this.grid.replaceChildren();
    this.grid.dataset.tiles = this.app.state.tiles;
    at("wall").scrollTop = 0;
    this.end.replaceChildren();
    const sorted = this.app.state.sort;
    do this.#append(false);
    while (this.seeds.length % CHUNK === 0 && this.seeds.length < (sorted ? SORTED : this.#fit()));
    this.#roving();
    this.#watch();
    if (sorted) this.#sort(turn);
    else this.#timed(turn, [...this.grid.children]);
  }

  /** How many tiles fill the box, at the most four chunks. */
  #fit() {
    const tile = this.grid.firstElementChild?.getBoundingClientRect();
    if (!tile?.width) return CHUNK;
    const columns = Math.max(1, Math.floor(this.grid.clientWidth / tile.width));
    return Math.min(4 * CHUNK, columns * Math.ceil(at("wall").clientHeight / tile.height));
  }

  #grow() {
    if (!this.app.model || !this.seeds.length || this.app.state.sort) return;
    if (this.seeds.length % CHUNK) return; // the last seed is there
    if (this.seeds.length < MOST) {
      this.#append(true);
      this.#watch();
    } else if (this.app.state.shuffle === null && !this.end.firstChild) {
      const next = this.app.state.first + BigInt(MOST);
      this.end.append(button(`Go on from seed ${next}`, () => this.app.store.change({ first: next })));
    }
  }

  /** Looks anew whether the end is in view: an observer tells of changes alone. */
  #watch() {
    this.observer.unobserve(this.end);
    this.observer.observe(this.end);
  }

  /** @param {boolean} lazy loads images when they come near */
  #append(lazy) {
    const tiles = [];
    for (let i = 0; i < CHUNK; i += 1) {
      const seed = this.seedAt(this.seeds.length);
      if (seed === null) break;
      this.seeds.push(seed);
      tiles.push(this.#tile(seed, lazy));
    }
    this.grid.append(...tiles);
    if (this.app.state.only && !this.seeds.length) {
      this.end.textContent = "No favourites yet: choose an image and press its star, or the key S.";
    }
  }

  /** @param {bigint} seed @param {boolean} lazy */
  #tile(seed, lazy) {
    const { image } = this.app.model;
    const picture = element("img", {
      alt: "", width: image.width, height: image.height, class: lookOf(this.app.model),
      ...(lazy ? { loading: "lazy" } : {}),
      onload: () => this.#came(tile),
      onerror: () => this.#missed(tile),
    });
    const tile = element(
      "button",
      { type: "button", tabIndex: -1, title: `Seed ${seed}`, "data-seed": seed,
        "aria-label": `Seed ${seed}`, "aria-pressed": seed === this.app.state.image },
      picture,
    );
    if (this.app.state.stars.includes(seed)) tile.classList.add("star");
    this.#load(picture, seed);
    return tile;
  }

  /** @param {any} picture @param {bigint} seed */
  #load(picture, seed) {
    const path = imagePath(this.app.state, this.app.model, seed);
    if (this.app.api.key) this.app.fetched(path, picture);
    else picture.src = path; // the old image stays until the new one is there
  }

  /** The same seeds in another look. */
  #reload() {
    if (!this.app.model || !this.seeds.length) return;
    if (this.app.state.sort) {
      this.redraw();
      return;
    }
    const turn = (this.turn += 1);
    this.began = performance.now();
    this.failed.clear();
    const tiles = [...this.grid.children];
    for (const [i, tile] of tiles.entries()) {
      /** @type {any} */ (tile.firstElementChild).className = lookOf(this.app.model);
      this.#load(tile.firstElementChild, this.seeds[i]);
    }
    this.#timed(turn, tiles.slice(0, CHUNK));
  }

  /** Says how long the first images took. @param {number} turn @param {any[]} tiles */
  async #timed(turn, tiles) {
    await Promise.all(tiles.map((tile) => settled(tile.firstElementChild)));
    if (turn !== this.turn || this.failed.size) return;
    const ms = Math.round(performance.now() - this.began);
    at("timed").textContent = `${tiles.length} images in ${ms} ms`;
  }

  /** @param {any} tile */
  #came(tile) {
    if (!this.failed.delete(tile) || this.failed.size) return;
    this.attempt = 0;
    this.app.say(null);
  }

  /** @param {any} tile */
  #missed(tile) {
    this.failed.add(tile);
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.#explain(), 50);
  }

  /** Asks for one of the images that did not come, which says why, and tries all again. */
  async #explain() {
    const [tile] = this.failed;
    if (!tile || this.app.lost) return;
    const turn = this.turn;
    /** @type {any} */
    let error = null;
    try {
      await this.app.api.ask(imagePath(this.app.state, this.app.model, BigInt(tile.dataset.seed)));
    } catch (refused) {
      error = refused;
    }
    if (turn !== this.turn) return;
    if (error && !error.passes) {
      this.app.say(error);
      return;
    }
    if (error?.status === 0) {
      this.app.miss();
      return;
    }
    this.attempt += 1;
    const pause = error ? Math.min(MOST_PAUSE_S, Math.max(error.retryAfterS ?? 0, 0.25 * 2 ** this.attempt)) : 0;
    if (error) this.app.say(again(error, pause));
    this.timer = window.setTimeout(() => turn === this.turn && this.retry(), pause * 1000);
  }

  /** Loads what did not come. */
  retry() {
    for (const tile of this.failed) {
      const picture = tile.firstElementChild;
      picture.removeAttribute("src");
      this.#load(picture, BigInt(tile.dataset.seed));
    }
  }

  #mark() {
    const { image, stars } = this.app.state;
    const starred = new Set(stars);
    for (const tile of this.grid.children) {
      const seed = BigInt(tile.dataset.seed);
      tile.setAttribute("aria-pressed", seed === image);
      tile.classList.toggle("star", starred.has(seed));
    }
  }

  /** One tile is a stop of the Tab key; the arrows go from there. @param {any} [tile] */
  #roving(tile = this.grid.firstElementChild) {
    this.grid.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    tile?.setAttribute("tabindex", "0");
  }

  /** @param {any} event */
  #key(event) {
    const tile = event.target.closest("button");
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
    const tiles = [...this.grid.children];
    const at = tiles.indexOf(tile);
    const columns = tiles.filter((each) => each.offsetTop === tiles[0].offsetTop).length;
    const steps = /** @type {Record<string, number>} */ ({
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: tiles.length - 1 - at,
    });
    if (event.key in steps) {
      const next = tiles[at + steps[event.key]];
      event.preventDefault();
      if (!next) return;
      this.#roving(next);
      next.focus();
    } else if (event.key.toLowerCase() === "s") this.app.star(BigInt(tile.dataset.seed));
  }

  /** Orders the images by what is measured on their pixels. @param {number} turn */
  async #sort(turn) {
    const tiles = [...this.grid.children];
    await Promise.all(tiles.map((tile) => settled(tile.firstElementChild)));
    if (turn !== this.turn) return;
    const name = this.app.state.sort;
    const measure = MEASURES[name];
    if (!measure) return;
    const values = new Map(tiles.map((tile) => [tile, measured(tile.firstElementChild, measure)]));
    tiles.sort((a, b) => (values.get(b) ?? 0) - (values.get(a) ?? 0));
    for (const tile of tiles) {
      tile.title = `Seed ${tile.dataset.seed}, ${name} ${(values.get(tile) ?? 0).toFixed(3)}`;
    }
    this.seeds = tiles.map((tile) => BigInt(tile.dataset.seed));
    this.grid.replaceChildren(...tiles);
    this.#roving();
    this.end.textContent = `${tiles.length} images, sorted by ${name}: measured here, on their pixels.`;
    this.#timed(turn, tiles);
  }
}

/** Waits until an image is there, or is known to be missing. @param {HTMLImageElement} image */
export function settled(image) {
  if (image.complete && image.naturalWidth) return Promise.resolve();
  return new Promise((resolve) => {
    for (const name of ["load", "error"]) image.addEventListener(name, resolve, { once: true });
  });
}
