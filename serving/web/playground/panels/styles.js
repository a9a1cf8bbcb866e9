// Style mixing: which styles of an image come from another seed, how far each is truncated, and a table.

import { button, element } from "../elements.js";
import { imagePath } from "../requests.js";
import { noStyles, seedOf } from "../state.js";

const SIDE = 4; // images of the table, each way

/** Two styles are of maps of 4 pixels, two of 8 and so on. @param {number} style */
const sizeOf = (style) => 4 * 2 ** Math.floor(style / 2);

/** @type {import("./registry.js").Panel} */
export const styles = {
  id: "styles",
  title: "Styles",
  isFor: ({ num_styles }) => num_styles !== null,
  build(app, body) {
    let drawn = "";
    /** @type {{take: any, psi: any, shown: any}[]} */
    let rows = [];
    const from = element("input", { type: "text", inputMode: "numeric", id: "style-from", maxLength: 20, onchange: () => take() });
    const table = element("div", { class: "table", role: "group", "aria-label": "Styles of the seed above in the seed on the left" });

    function take() {
      const seed = seedOf(from.value.trim());
      if (from.value.trim() && seed === null) {
        app.say({ message: "The seed of the styles is a whole number in 0 .. 2^64 - 1." });
        return;
      }
      const layers = rows.flatMap(({ take }, i) => (take.checked ? [i] : []));
      const { truncation } = app.state.styles;
      // Without a layer the seed stands for nothing: the finer half is what most people want first.
      const some = layers.length ? layers : rows.map((_, i) => i).slice(rows.length >> 1);
      app.store.change({ styles: { from: seed, layers: seed === null ? [] : some, truncation }, off: [] });
    }

    /** @param {boolean} settled */
    function truncate(settled) {
      const values = rows.map(({ psi }) => Number(psi.value));
      const truncation = values.every((value) => value === app.state.psi) ? null : values;
      app.store.change({ styles: { ...app.state.styles, truncation }, off: [] }, settled);
    }

    function draw() {
      rows = Array.from({ length: app.model.num_styles }, (_, i) => {
        const name = `${i} (${sizeOf(i)} pixels)`;
        const shown = element("output");
        return {
          take: element("input", { type: "checkbox", "aria-label": `Style ${name} of the other seed`, onchange: take }),
          psi: element("input", {
            type: "range", min: 0, max: 2, step: 0.05, "aria-label": `Truncation of style ${name}`,
            oninput: () => truncate(false), onchange: () => truncate(true),
          }),
          shown,
        };
      });
      body.replaceChildren(
        element("div", { class: "buttons" },
          element("label", {}, "Styles of seed ", from),
          button("Take the chosen image", () => {
            from.value = String(app.picture.seed);
            take();
          })),
        element("table", {},
          element("caption", { textContent: "A style is an input of the network, the coarsest first." }),
          element("thead", {}, element("tr", {}, ...["style", "other seed", "truncation"].map((name) =>
            element("th", { scope: "col", textContent: name })))),
          element("tbody", {}, ...rows.map(({ take: box, psi, shown }, i) =>
            element("tr", {}, element("th", { scope: "row", textContent: `${i}, ${sizeOf(i)} px` }),
              element("td", {}, box), element("td", { class: "slide" }, psi, shown))))),
        button("Reset styles", () => app.store.change({ styles: noStyles() })),
        table,
      );
    }

    /** Seeds of the wall down, others across: each cell is the left one with the styles of the one above. */
    function mix() {
      const layers = app.state.styles.layers.length
        ? app.state.styles.layers
        : rows.map((_, i) => i).slice(rows.length >> 1);
      const seeds = (/** @type {number} */ start) =>
        Array.from({ length: SIDE }, (_, i) => app.state.first + BigInt(start + i));
      const [own, others] = [seeds(0), app.state.stars.length >= SIDE ? app.state.stars.slice(0, SIDE) : seeds(SIDE)];
      const cell = (/** @type {bigint} */ seed, /** @type {bigint | null} */ other) => {
        const mixed = { ...app.state, off: [], styles: { ...app.state.styles, from: other, layers: other === null ? [] : layers } };
        const alt = other === null ? `Seed ${seed}` : `Seed ${seed} with styles ${layers.join(" ")} of seed ${other}`;
        return app.thumbnail(imagePath(mixed, app.model, seed), alt);
      };
      table.replaceChildren(
        element("span", { textContent: `Styles ${layers.join(", ")} of the image above, all others of the image on the left:`, class: "wide" }),
        element("span"), ...others.map((seed) => cell(seed, null)),
        ...own.flatMap((seed) => [cell(seed, null), ...others.map((other) => cell(seed, other))]),
      );
    }

    return (changed, settled) => {
      const wanted = `${app.model.name} ${app.model.version}`;
      if (wanted !== drawn) {
        drawn = wanted;
        draw();
      }
      const { from: seed, layers, truncation } = app.state.styles;
      if (document.activeElement !== from) from.value = seed === null ? "" : String(seed);
      rows.forEach(({ take: box, psi, shown }, i) => {
        box.checked = layers.includes(i);
        const value = truncation?.[i] ?? app.state.psi;
        if (Number(psi.value) !== value) psi.value = String(value);
        shown.textContent = value.toFixed(2);
      });
      const box = /** @type {HTMLDetailsElement} */ (body.parentElement);
      if (settled && box.open) mix();
    };
  },
};
