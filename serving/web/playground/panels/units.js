// Units: feature maps that are switched off, by concept or by number.

import { button, element } from "../elements.js";
import { noStyles } from "../state.js";

/** @type {import("./registry.js").Panel} */
export const units = {
  id: "units",
  title: "Units",
  isFor: ({ parts }) => parts.includes("units"),
  build(app, body) {
    let drawn = "";
    const numbers = element("input", {
      type: "text", id: "units-off", inputMode: "numeric", placeholder: "such as 3, 17",
      onchange: () => {
        const words = numbers.value.split(/[\s,]+/).filter(Boolean);
        const wrong = words.find((/** @type {string} */ word) => !/^\d{1,6}$/.test(word) || Number(word) >= app.units.num);
        if (wrong) app.say({ message: `${wrong} is no unit; allowed are 0 .. ${app.units.num - 1}.` });
        else off(words.map(Number));
      },
    });
    /** @type {Map<number, any[]>} */
    const boxes = new Map();

    /** Units and styles are made by different graphs. @param {number[]} wanted */
    function off(wanted) {
      app.store.change({ off: [...new Set(wanted)].sort((a, b) => a - b), styles: noStyles() });
    }

    /** @param {number} unit @param {string} more */
    function box(unit, more) {
      const layer = app.units.layers.findLast((/** @type {any} */ each) => each.first <= unit);
      const input = element("input", {
        type: "checkbox",
        onchange: () => {
          const rest = app.state.off.filter((each) => each !== unit);
          off(input.checked ? [...rest, unit] : rest);
        },
      });
      boxes.set(unit, [...(boxes.get(unit) ?? []), input]);
      return element("label", { class: "check" }, input, `${unit} (${layer.maps}${more})`);
    }

    function draw() {
      boxes.clear();
      const { concepts, effects, artifacts, num } = app.units;
      const close = element("div", { class: "checks" });
      const note = element("small");
      const choice = element("select", { id: "concept", onchange: () => choose() },
        ...concepts.map((/** @type {any} */ each, /** @type {number} */ i) => new Option(each.concept, String(i))));
      function choose() {
        boxes.clear();
        worse();
        const concept = concepts[Number(choice.value)];
        close.replaceChildren(...concept.closest.map((/** @type {any} */ each) => box(each.unit, `, agrees ${each.agreement.toFixed(2)}`)));
        if (!concept.closest.length) close.textContent = "No unit agrees with it.";
        const effect = effects.find((/** @type {any} */ each) => each.concept === concept.concept);
        const isSure = effect && effect.p < 0.05;
        note.textContent = effect
          ? `Without units ${effect.units.join(", ")} it loses ${effect.effect.toFixed(2)} standard deviations more than without random ones ` +
            `(their range: ${effect.low.toFixed(2)} .. ${effect.high.toFixed(2)}; p ${effect.p.toPrecision(2)}): ${isSure ? "an effect" : "not more than chance"}.`
          : "Its effect was not measured.";
        show();
      }
      const bad = element("div", { class: "checks" });
      function worse() {
        bad.replaceChildren(...artifacts.map((/** @type {any} */ each) =>
          box(each.unit, `, distance falls by ${each.gain.toPrecision(3)}, ${each.low.toPrecision(3)} .. ${each.high.toPrecision(3)}`)));
      }
      body.replaceChildren(
        element("label", {}, `Switched off, of units 0 .. ${num - 1}`, numbers),
        element("label", {}, "Units that agree with", choice), close, note,
        ...(artifacts.length ? [element("p", { textContent: "Without these, images are closer to real ones:" }), bad] : []),
        button("Switch all on", () => off([])),
      );
      choose();
    }

    function show() {
      for (const [unit, inputs] of boxes) for (const input of inputs) input.checked = app.state.off.includes(unit);
      if (document.activeElement !== numbers) numbers.value = app.state.off.join(", ");
    }

    return (changed) => {
      const wanted = `${app.model.name} ${app.model.version}`;
      if (wanted !== drawn && app.units) {
        drawn = wanted;
        draw();
      } else if (changed.has("off")) show();
    };
  },
};
