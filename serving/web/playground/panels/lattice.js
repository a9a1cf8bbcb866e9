// A lattice between four seeds: their images in its corners, and what lies between them.

import { Newest } from "../api.js";
import { button, element, lookOf } from "../elements.js";
import { latent, slerp, written } from "../latents.js";
import { GENERATE, fieldsOf, labelled } from "../requests.js";
import { LOOK, seedOf } from "../state.js";

const SIDE = 7;
const NAMES = ["upper left", "upper right", "lower left", "lower right"];

/** The latents of all places, row by row. @param {bigint[]} corners @param {number} dim */
export function places(corners, dim) {
  const [a, b, c, d] = corners.map((seed) => latent(seed, dim));
  return Array.from({ length: SIDE * SIDE }, (_, i) => {
    const [x, y] = [(i % SIDE) / (SIDE - 1), Math.floor(i / SIDE) / (SIDE - 1)];
    return slerp(slerp(a, b, x), slerp(c, d, x), y);
  });
}

/** @type {import("./registry.js").Panel} */
export const lattice = {
  id: "lattice",
  title: "Lattice of four seeds",
  isFor: () => true,
  build(app, body) {
    const newest = new Newest();
    const inputs = NAMES.map((name) => element("input", {
      type: "text", inputMode: "numeric", maxLength: 20, "aria-label": `Seed of the ${name} corner`, onchange: () => take(),
    }));
    const picture = element("img", { alt: "", hidden: true, id: "lattice-image", class: "whole" });
    function take() {
      const seeds = inputs.map((input) => seedOf(input.value.trim()));
      if (seeds.includes(null)) app.say({ message: "Each corner is a seed, a whole number in 0 .. 2^64 - 1." });
      else app.store.change({ corners: /** @type {bigint[]} */ (seeds) });
    }
    body.append(
      element("div", { class: "corners" }, ...inputs),
      element("div", { class: "buttons" },
        button("Take the wall's first four", () => app.store.change({ corners: app.wall.seeds.slice(0, 4) }), { id: "take-corners" }),
        button("Take four favourites", () => {
          if (app.state.stars.length >= 4) app.store.change({ corners: app.state.stars.slice(0, 4) });
          else app.say({ message: `There are ${app.state.stars.length} favourites, a lattice has four corners.` });
        })),
      picture);

    async function make() {
      const { state, model } = app;
      const fields = {
        ...fieldsOf(state, model), ...labelled("labels", state, model),
        latents: written(places(state.corners, model.z_dim)), layout: "grid", format: "png",
      };
      return (await app.api.post(GENERATE, JSON.stringify(fields))).blob();
    }

    return (changed, settled) => {
      const { corners } = app.state;
      inputs.forEach((input, i) => (input.value = corners.length ? String(corners[i]) : ""));
      picture.hidden = corners.length === 0;
      const box = /** @type {HTMLDetailsElement} */ (body.parentElement);
      if (changed.has("corners") && corners.length) box.open = true;
      const matters = [...LOOK, "corners", "opened"].some((name) => changed.has(name));
      if (!settled || !matters || !corners.length || !box.open) return;
      newest.run(make, (blob) => {
        URL.revokeObjectURL(picture.src);
        picture.className = `whole ${lookOf(app.model)}`;
        picture.src = URL.createObjectURL(blob);
        picture.alt = `${SIDE} by ${SIDE} images between the seeds ${corners.join(", ")}`;
      }, (error) => app.fail(error));
    };
  },
};
