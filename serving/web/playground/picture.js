// One image, large, with everything that makes it again, and a place to drop such a file.

import { Newest } from "./api.js";
import { at, button, element, lookOf, save } from "./elements.js";
import { otherDigest, stateOf, textOf } from "./png_text.js";
import { absolute, curl, imagePath, python } from "./requests.js";
import { LOOK } from "./state.js";

const MOST_CLASSES = 24;

export class Picture {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.newest = new Newest();
    this.shown = "";
    this.image = at("large");
    at("copy-url").onclick = () => this.#copy(() => absolute(this.path()));
    at("copy-curl").onclick = () => this.#copy(() => curl(this.path(), Boolean(app.api.key)));
    at("copy-python").onclick = () =>
      this.#copy(() => python(app.state, app.model, this.seed, Boolean(app.api.key)));
    at("download-image").onclick = () =>
      app.guarded(async () => save(await (await app.api.ask(this.path())).blob(), `${this.seed}.png`));
    at("star").onclick = () => app.star(this.seed);
    at("to-path").onclick = () => app.store.change({ path: [...app.state.path, this.seed] });
    at("open-file").onchange = () => {
      this.#open(at("open-file").files[0]);
      at("open-file").value = ""; // the same file may be opened again
    };
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#open(event.dataTransfer?.files[0]);
    });
  }

  /** @returns {bigint} */
  get seed() {
    return this.app.state.image ?? this.app.state.first;
  }

  path() {
    return imagePath(this.app.state, this.app.model, this.seed);
  }

  /** @param {Set<string>} changed @param {boolean} settled */
  update(changed, settled) {
    const { state, model } = this.app;
    at("hint").hidden = state.image !== null;
    at("chosen").hidden = state.image === null;
    if (state.image === null || !model) return;
    const isStar = state.stars.includes(this.seed);
    at("star").setAttribute("aria-pressed", isStar);
    at("star").textContent = isStar ? "\u2605 Favourite" : "\u2606 Favourite";
    if (changed.has("model")) this.newest.drop();
    if (![...LOOK, "image"].some((name) => changed.has(name))) return;
    this.#show();
    if (settled) this.#classes();
  }

  /** Loads it and then shows it, so that nothing flickers. */
  #show() {
    const path = this.path();
    const began = performance.now();
    const [seed, words] = [this.seed, this.words()];
    this.newest.run(
      () => this.app.api.image(path),
      (image) => {
        const { model } = this.app;
        this.image.className = lookOf(model);
        this.image.width = model.image.width;
        this.image.height = model.image.height;
        this.image.src = image.src;
        if (image.dataset.owned) this.image.onload = () => URL.revokeObjectURL(image.src);
        this.image.alt = `Seed ${seed}`;
        at("caption").textContent = words;
        this.shown = path;
        requestAnimationFrame(() => performance.measure("picture", { start: began, end: performance.now() }));
      },
      (error) => this.app.fail(error),
    );
  }

  /** Shows what could not be shown. */
  retry() {
    if (this.app.state.image !== null && this.shown !== this.path()) this.#show();
  }

  /** The image in words. */
  words() {
    const { state, model } = this.app;
    const named = model.labels && state.label !== null ? `, class ${model.labels[state.label]}` : "";
    const psi = state.psi === 1 ? "" : `, truncation ${state.psi.toFixed(2)}`;
    const { from, layers } = state.styles;
    const mixed = from !== null && layers.length ? `, styles ${layers.join(" ")} of seed ${from}` : "";
    const off = state.off.length ? `, without units ${state.off.join(" ")}` : "";
    return `Seed ${this.seed}${named}${psi}${this.app.directionWords().map((each) => `, ${each}`).join("")}${mixed}${off}`;
  }

  /** The same seed in every class. */
  #classes() {
    const { state, model } = this.app;
    at("classes").hidden = !model.labels || this.app.api.key !== "";
    if (at("classes").hidden) return;
    const labels = model.labels.slice(0, MOST_CLASSES);
    at("classes").replaceChildren(
      ...labels.map((/** @type {string} */ name, /** @type {number} */ label) => {
        const picture = element("img", {
          alt: "", width: model.image.width, height: model.image.height, class: lookOf(model),
          src: imagePath({ ...state, label }, model, this.seed),
        });
        const choose = button("", () => this.app.store.change({ label }), {
          title: `Class ${name}`, "aria-label": `Class ${name}`, "aria-pressed": label === state.label,
        });
        choose.append(picture);
        return choose;
      }),
    );
  }

  /** @param {() => string} text */
  #copy(text) {
    this.app.guarded(async () => {
      await navigator.clipboard.writeText(text());
      this.app.tell("Copied.");
    });
  }

  /** @param {File | undefined} file */
  async #open(file) {
    if (!file) return;
    try {
      const told = textOf(await file.arrayBuffer());
      const state = stateOf(told, this.app.models);
      this.app.store.replace(state);
      // Of an older version the digest isn't known yet.
      const listed = this.app.models.find(({ name }) => name === state.model);
      this.app.tell(otherDigest(told, state.version === null ? listed.digest : told.digest) || `Opened ${file.name}.`);
    } catch (error) {
      this.app.say(error);
    }
  }
}
