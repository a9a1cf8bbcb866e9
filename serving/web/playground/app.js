// Puts the parts of the page together: the state, the model that is looked at, who is told of changes.

import { Api, Newest } from "./api.js";
import { at, element, lookOf } from "./elements.js";
import { measuresOf } from "./measures.js";
import { again, say, tell } from "./messages.js";
import { PANELS } from "./panels/registry.js";
import { Picture } from "./picture.js";
import { Pulse } from "./pulse.js";
import { Store, fromText, noStyles } from "./state.js";
import { Wall } from "./wall.js";

const MODELS = "v1/models";
const LOST = "The server does not answer. This page tries again by itself; nothing that you chose is lost.";
const MOST_FETCHED = 12; // images at once, where each needs a key

export class App {
  constructor() {
    this.api = new Api();
    this.store = new Store();
    /** @type {any[]} */
    this.models = [];
    /** The model and version that is looked at, as the server describes it; null before that is known.
     * @type {any} */
    this.model = null;
    /** @type {any[]} of GET v1/models/{model}/directions */
    this.directions = [];
    /** @type {any} of GET v1/models/{model}/units; null where there are none */
    this.units = null;
    this.lost = false;
    this.attempt = 0;
    this.turn = 0;
    this.fetching = 0;
    /** @type {(() => void)[]} */
    this.queue = [];
    this.described = new Newest();
    this.wall = new Wall(this);
    this.picture = new Picture(this);
    this.pulse = new Pulse(this);
    /** @type {{panel: any, box: any, update: (changed: Set<string>, settled: boolean) => void}[]} */
    this.panels = PANELS.map((panel) => {
      const body = element("div", { class: "body" });
      const box = element("details", { id: panel.id, hidden: true, open: panel.open ?? false },
        element("summary", { textContent: panel.title }), body);
      at("panels").append(box);
      const update = panel.build(this, body);
      box.addEventListener("toggle", () => box.open && this.model && update(new Set(["opened"]), true));
      return { panel, box, update };
    });
    this.store.listeners.push((changed, settled) => this.#changed(changed, settled));
  }

  get state() {
    return this.store.value;
  }

  /** Asks for the models until there are some. */
  async start() {
    try {
      this.models = (await this.api.json(MODELS)).models;
      if (!this.models.length) {
        this.#later({ status: 503, message: "No model is served yet." });
        return;
      }
    } catch (error) {
      this.#later(error);
      return;
    }
    this.lost = false;
    this.say(null);
    document.body.classList.remove("locked");
    at("model").replaceChildren(...this.models.map(({ name }) => new Option(name)));
    this.store.replace(this.#known(fromText(location.hash.slice(1))));
    this.pulse.beat();
  }

  /** @param {any} error */
  #later(error) {
    this.say(error);
    if (error.status !== 401) setTimeout(() => this.start(), 1500);
  }

  /** A state whose model is served here. @param {import("./state.js").State} state */
  #known(state) {
    if (!this.models.some(({ name }) => name === state.model)) state.model = this.models[0].name;
    return state;
  }

  /** @param {Set<string>} changed @param {boolean} settled */
  #changed(changed, settled) {
    if (changed.has("model") || changed.has("version")) this.#describe(changed);
    else if (this.model) this.#show(changed, settled);
  }

  /** Learns of the model what the page needs; an answer for another one than is wanted is dropped.
   * @param {Set<string>} changed */
  async #describe(changed) {
    const turn = (this.turn += 1);
    const { model: name, version } = this.state;
    try {
      const query = version === null ? "" : `?version=${version}`;
      const path = `${MODELS}/${encodeURIComponent(name)}`;
      const listed = this.models.find((each) => each.name === name);
      const model = version === null ? listed : await this.api.json(path + query);
      const pinned = `?version=${model.version}`;
      const has = (/** @type {string} */ part) => model.parts.includes(part);
      const [directions, units] = await Promise.all([
        has("directions") ? this.api.json(`${path}/directions${pinned}`) : { directions: [] },
        has("units") ? this.api.json(`${path}/units${pinned}`) : null,
      ]);
      if (turn !== this.turn) return;
      this.model = model;
      this.directions = directions.directions;
      this.units = units;
      this.#fit();
      for (const { panel, box } of this.panels) box.hidden = !panel.isFor(model);
      this.#show(new Set([...changed, "model", "label", "directions", "styles", "off"]), true);
    } catch (error) {
      if (turn === this.turn) this.fail(error);
    }
  }

  /** Takes from the state what the model doesn't have. */
  #fit() {
    const { model, state } = this;
    const label = model.labels ? Math.min(state.label ?? 0, model.labels.length - 1) : null;
    const keys = new Set(this.directions.filter((each) => [null, label].includes(each.label)).map(({ key }) => key));
    const byName = new Map(this.directions.map(({ name, key }) => [name, key]));
    const isKnown = (/** @type {string} */ key) => keys.has(key) || keys.has(key.replace(/@.*/, ""));
    const directions = [...state.directions]
      .map(([key, amount]) => /** @type {[string, number]} */ ([isKnown(key) ? key : (byName.get(key) ?? ""), amount]))
      .filter(([key]) => key);
    const num = this.units?.num ?? 0;
    const isStyled = model.num_styles !== null;
    this.store.fit({
      label,
      directions: new Map(directions),
      styles: isStyled ? state.styles : noStyles(),
      off: state.off.filter((unit) => unit < num),
      against: model.versions.includes(state.against) ? state.against : null,
      sort: measuresOf(model).includes(state.sort) ? state.sort : "",
    });
  }

  /** @param {Set<string>} changed @param {boolean} settled */
  #show(changed, settled) {
    if (settled) this.say(null);
    this.#controls(changed);
    document.body.classList.remove("waiting");
    this.wall.update(changed, settled);
    this.picture.update(changed, settled);
    for (const { box, update } of this.panels) if (!box.hidden) update(changed, settled);
  }

  /** @param {Set<string>} changed */
  #controls(changed) {
    const { state, model } = this;
    if (changed.has("model")) {
      at("model").value = model.name;
      at("label-field").hidden = !model.labels;
      at("label").replaceChildren(
        ...(model.labels ?? []).map((/** @type {string} */ name, /** @type {number} */ i) => new Option(name, String(i))),
      );
      at("version").replaceChildren(new Option("served now", ""),
        ...model.versions.map((/** @type {number} */ version) => new Option(String(version))));
      at("sort").replaceChildren(new Option("seed", ""), ...measuresOf(model).map((name) => new Option(name)));
      document.body.style.setProperty("--ratio", `${model.image.width} / ${model.image.height}`);
      const { name, version, digest } = model;
      at("provenance").textContent = `${name}, version ${version}, digest ${digest.slice(0, 16)}`;
    }
    at("version").value = state.version ?? "";
    if (model.labels) at("label").value = state.label;
    at("seed").value = state.first;
    at("psi").value = state.psi;
    at("psi-shown").textContent = state.psi.toFixed(2);
    at("sort").value = state.sort;
    at("tiles").value = state.tiles;
    at("only").checked = state.only;
    at("shuffle").setAttribute("aria-pressed", state.shuffle !== null);
  }

  /** @param {bigint} seed */
  choose(seed) {
    this.store.change({ image: seed });
  }

  /** @param {bigint} seed */
  star(seed) {
    const { stars } = this.state;
    this.store.change({ stars: stars.includes(seed) ? stars.filter((each) => each !== seed) : [...stars, seed] });
  }

  /** The directions that images are moved along, in words. */
  directionWords() {
    const named = new Map(this.directions.map(({ key, name }) => [key, name ?? `direction ${key}`]));
    return [...this.state.directions].map(
      ([key, amount]) => `${named.get(key) ?? `direction ${key}`} ${amount > 0 ? "+" : "\u2212"}${Math.abs(amount).toFixed(1)}`,
    );
  }

  /** Says what failed; what passes is tried again. @param {any} error */
  fail(error) {
    if (error?.name === "AbortError") return;
    if (error?.status === 0) this.miss();
    else if (error?.passes) {
      this.attempt += 1;
      const pause = Math.min(10, Math.max(error.retryAfterS ?? 0, 0.25 * 2 ** this.attempt));
      this.say(again(error, pause));
      setTimeout(() => this.retry(), pause * 1000);
    } else this.say(error);
    document.body.classList.remove("waiting"); // something else may be chosen
  }

  /** The server doesn't answer. */
  miss() {
    if (this.lost) return;
    this.lost = true;
    this.say({ message: LOST });
    this.pulse.beat();
  }

  /** The server answers, and serves these. @param {any[]} models */
  answered(models) {
    const before = this.models;
    this.models = models;
    if (this.lost) {
      this.lost = false;
      this.say(null);
      this.tell("The server answers again.");
      this.retry();
    }
    const name = this.state.model;
    const [now, then] = [models, before].map((list) => list.find((each) => each.name === name));
    if (!now || !then || now.digest === then.digest || this.state.version !== null) return;
    this.tell(`${name} is now version ${now.version}; these images are of version ${this.model?.version}.`,
      `Show version ${now.version}`, () => {
        this.tell("");
        this.store.change({ model: name, version: null });
      });
  }

  /** Asks again for what did not come. */
  retry() {
    const { model, version } = this.state;
    const isKnown = this.model?.name === model && (version ?? this.model.version) === this.model.version;
    if (!isKnown) {
      this.#describe(new Set(Object.keys(this.state)));
      return;
    }
    this.attempt = 0;
    this.say(null);
    this.wall.retry();
    this.picture.retry();
    for (const { box, update } of this.panels) if (!box.hidden && box.open) update(new Set(["opened"]), true);
  }

  /** Says what went wrong; null takes it back, but not that the server is lost: only an answer does.
   * @param {any} error */
  say(error) {
    say(error ?? (this.lost ? { message: LOST } : null), this.api.key !== "");
  }

  /** @param {string} text @param {string} [action] @param {() => void} [act] */
  tell(text, action, act) {
    tell(text, action, act);
  }

  /** Does something that is asked for once, and says why it failed. @param {() => Promise<void>} work */
  async guarded(work) {
    try {
      this.say(null);
      await work();
    } catch (error) {
      this.say(error);
    }
  }

  /** Shows an image that needs a key in an element. @param {string} path @param {any} picture */
  fetched(path, picture) {
    picture.dataset.wanted = path;
    this.queue.push(async () => {
      if (picture.dataset.wanted !== path || !picture.isConnected) return; // another one is wanted by now
      try {
        const loaded = await this.api.image(path);
        if (picture.dataset.wanted !== path) return;
        picture.addEventListener("load", () => URL.revokeObjectURL(loaded.src), { once: true });
        picture.src = loaded.src;
      } catch {
        picture.dispatchEvent(new Event("error"));
      }
    });
    queueMicrotask(() => this.#fetch());
  }

  async #fetch() {
    if (this.fetching >= MOST_FETCHED) return;
    this.fetching += 1;
    for (let next = this.queue.shift(); next; next = this.queue.shift()) await next();
    this.fetching -= 1;
  }

  /** An image's element for a path, in a panel. @param {string} path @param {string} alt */
  thumbnail(path, alt) {
    const { image } = this.model;
    const picture = element("img", { alt, width: image.width, height: image.height, class: lookOf(this.model) });
    if (this.api.key) this.fetched(path, picture);
    else picture.src = path;
    return picture;
  }
}
