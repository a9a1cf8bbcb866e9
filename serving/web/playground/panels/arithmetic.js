// A - B + C of three latents: what distinguishes A from B, put on C.

import { Newest } from "../api.js";
import { button, element, lookOf } from "../elements.js";
import { arithmetic as sum, latent, written } from "../latents.js";
import { GENERATE, fieldsOf, imagePath, labelled } from "../requests.js";
import { LOOK, seedOf } from "../state.js";

/** @type {import("./registry.js").Panel} */
export const arithmetic = {
  id: "arithmetic",
  title: "A \u2212 B + C",
  isFor: () => true,
  build(app, body) {
    const newest = new Newest();
    const inputs = ["A", "B", "C"].map((name) => element("input", {
      type: "text", inputMode: "numeric", maxLength: 20, id: `term-${name}`, onchange: () => take(),
    }));
    const shown = element("div", { class: "sum" });
    function take() {
      if (inputs.some((input) => !input.value.trim())) return; // not all are given yet
      const seeds = inputs.map((input) => seedOf(input.value.trim()));
      if (seeds.includes(null)) app.say({ message: "A, B and C are seeds, whole numbers in 0 .. 2^64 - 1." });
      else app.store.change({ terms: /** @type {bigint[]} */ (seeds) });
    }
    body.append(
      element("p", { textContent: "Of latents, scaled to the length of C. Nothing says that it means what it looks like." }),
      ...["A", "B", "C"].map((name, i) => element("div", { class: "buttons" },
        element("label", { class: "check" }, name, inputs[i]),
        button("Chosen image", () => {
          inputs[i].value = String(app.picture.seed);
          take();
        }, { "aria-label": `Chosen image as ${name}` }))),
      shown);

    async function make() {
      const { state, model } = app;
      const [a, b, c] = state.terms.map((seed) => latent(seed, model.z_dim));
      const fields = {
        ...fieldsOf(state, model), ...labelled("labels", state, model),
        latents: written([sum(a, b, c)]), format: "png",
      };
      return (await app.api.post(GENERATE, JSON.stringify(fields))).blob();
    }

    return (changed, settled) => {
      const { terms } = app.state;
      if (changed.has("terms") || changed.has("model")) {
        inputs.forEach((input, i) => (input.value = terms.length ? String(terms[i]) : ""));
      }
      const box = /** @type {HTMLDetailsElement} */ (body.parentElement);
      if (changed.has("terms") && terms.length) box.open = true;
      const matters = [...LOOK, "terms", "opened"].some((name) => changed.has(name));
      if (!settled || !matters || !box.open) return;
      if (!terms.length) {
        newest.drop();
        shown.replaceChildren();
        return;
      }
      newest.run(make, (blob) => {
        const result = element("img", { alt: "A \u2212 B + C", class: lookOf(app.model), id: "sum", src: URL.createObjectURL(blob) });
        result.onload = () => URL.revokeObjectURL(result.src);
        const [a, b, c] = app.state.terms.map((seed, i) =>
          app.thumbnail(imagePath(app.state, app.model, seed), `${"ABC"[i]}, seed ${seed}`));
        shown.replaceChildren(a, "\u2212", b, "+", c, "=", result);
      }, (error) => app.fail(error));
    };
  },
};
