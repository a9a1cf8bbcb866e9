// Version beside version: the same seeds of two versions, and how far their pixels differ.

import { element } from "../elements.js";
import { bytesOf } from "../measures.js";
import { imagePath } from "../requests.js";
import { LOOK } from "../state.js";
import { Newest } from "../api.js";

const ROWS = 6;

/** Draws |a - b| of two loaded images. @param {any} one @param {any} other @param {any} canvas */
function difference(one, other, canvas) {
  const [a, b] = [bytesOf(one), bytesOf(other)];
  canvas.width = a.width;
  canvas.height = a.height;
  if (a.width !== b.width || a.height !== b.height) return "other size";
  const context = canvas.getContext("2d");
  const made = context.createImageData(a.width, a.height);
  let [largest, total] = [0, 0];
  for (let i = 0; i < a.data.length; i += 1) {
    const apart = Math.abs(a.data[i] - b.data[i]);
    made.data[i] = i % 4 === 3 ? 255 : apart;
    if (i % 4 === 3) continue;
    largest = Math.max(largest, apart);
    total += apart;
  }
  context.putImageData(made, 0, 0);
  return `mean ${((4 * total) / (3 * a.data.length)).toFixed(1)}, most ${largest}`;
}

/** @type {import("./registry.js").Panel} */
export const versions = {
  id: "versions",
  title: "Versions side by side",
  isFor: ({ versions: all }) => all.length > 1,
  build(app, body) {
    const choice = element("select", {
      id: "against",
      onchange: () => app.store.change({ against: choice.value ? Number(choice.value) : null }),
    });
    const table = element("div", { class: "pairs" });
    const newest = new Newest();
    body.append(element("label", {}, "Beside version", choice), table);

    /** @param {number} against */
    async function compare(against) {
      const { state, model, api } = app;
      const first = state.image === null ? [] : [state.image];
      const seeds = [...first, ...app.wall.seeds.filter((seed) => seed !== state.image)].slice(0, ROWS);
      return Promise.all(seeds.map(async (seed) => {
        const [one, other] = await Promise.all(
          [state.version, against].map((version) => api.image(imagePath({ ...state, version }, model, seed))),
        );
        const canvas = element("canvas", { role: "img", "aria-label": `Difference of seed ${seed}` });
        const words = difference(one, other, canvas);
        for (const [image, version] of /** @type {[any, any][]} */ ([[one, model.version], [other, against]])) {
          image.alt = `Seed ${seed}, version ${version}`;
          image.className = app.picture.image.className || "";
        }
        canvas.className = model.image.width < 96 ? "small" : "";
        return [element("span", { textContent: `Seed ${seed}: ${words}`, class: "wide" }), one, other, canvas];
      }));
    }

    return (changed, settled) => {
      const { model, state } = app;
      if (changed.has("model")) {
        const others = model.versions.filter((/** @type {number} */ each) => each !== model.version);
        choice.replaceChildren(new Option("none", ""), ...others.map((/** @type {number} */ each) => new Option(String(each))));
      }
      choice.value = state.against === null || state.against === model.version ? "" : String(state.against);
      if (!choice.value) {
        newest.drop();
        table.replaceChildren();
        return;
      }
      const box = /** @type {HTMLDetailsElement} */ (body.parentElement);
      if (changed.has("against") || changed.has("model")) box.open = true;
      const matters = [...LOOK, "against", "image", "first", "shuffle", "opened"].some((name) => changed.has(name));
      if (!settled || !matters || !box.open) return;
      const heads = [`version ${model.version}`, `version ${choice.value}`, "difference"];
      newest.run(() => compare(Number(choice.value)),
        (rows) => table.replaceChildren(...heads.map((textContent) => element("b", { textContent })), ...rows.flat()),
        (error) => app.fail(error));
    };
  },
};
