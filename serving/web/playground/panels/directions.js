// Sliders of a model's directions: how far its images are moved, and what was measured to follow.

import { button, element } from "../elements.js";

const MOST = 3; // units: further out a model has hardly been trained
const STEP = 0.1;
const FIRST = 5; // sliders that are always shown

/** @param {any} direction of GET v1/models/{model}/directions */
function evidenceOf({ share, evidence }) {
  const follows = evidence
    .slice(0, 2)
    .map((/** @type {any} */ each) => `${each.concept} ${each.correlation >= 0 ? "+" : "\u2212"}${Math.abs(each.correlation).toFixed(2)}`);
  return `${Math.round(100 * share)} % of the change; follows ${follows.join(", ")}`;
}

/** @type {import("./registry.js").Panel} */
export const directions = {
  id: "directions",
  title: "Directions",
  open: true,
  isFor: ({ parts }) => parts.includes("directions"),
  build(app, body) {
    /** @type {Map<string, {slider: any, output: any}>} */
    let rows = new Map();
    let drawn = "";

    /** @param {string} key @param {number} amount @param {boolean} settled */
    function move(key, amount, settled) {
      const amounts = new Map(app.state.directions);
      if (amount) amounts.set(key, amount);
      else amounts.delete(key);
      app.store.change({ directions: amounts }, settled);
    }

    /** @param {any} each */
    function row(each) {
      const note = element("small", { textContent: evidenceOf(each), id: `evidence-${each.key.replace(/\W/g, "-")}` });
      const output = element("output");
      const slider = element("input", {
        type: "range", min: -MOST, max: MOST, step: STEP, "data-key": each.key, "aria-describedby": note.id,
        oninput: () => move(each.key, Number(slider.value), false),
        onchange: () => move(each.key, Number(slider.value), true),
      });
      rows.set(each.key, { slider, output });
      const name = element("span", { textContent: each.name ? `${each.key}  ${each.name}` : `direction ${each.key}` });
      return element("label", {}, element("span", { class: "head" }, name, output), slider, note);
    }

    function draw() {
      const { label } = app.state;
      rows = new Map();
      const known = app.directions.filter((each) => each.label === null || each.label === label);
      const made = known.map(row);
      const more = element("details", {}, element("summary", { textContent: `${made.length - FIRST} more` }), ...made.slice(FIRST));
      more.open = known.slice(FIRST).some(({ key }) => app.state.directions.has(key));
      const reset = button("Reset directions", () => app.store.change({ directions: new Map() }), { id: "reset" });
      body.replaceChildren(...made.slice(0, FIRST), ...(made.length > FIRST ? [more] : []), reset);
    }

    return (changed) => {
      const wanted = `${app.model.name} ${app.model.version} ${app.state.label}`;
      if (wanted !== drawn) {
        drawn = wanted;
        draw();
      } else if (!changed.has("directions")) return;
      for (const [key, { slider, output }] of rows) {
        const amount = app.state.directions.get(key) ?? 0;
        if (Number(slider.value) !== amount) slider.value = String(amount);
        output.textContent = amount.toFixed(1);
      }
    };
  },
};
