// The sliders of a model's directions: how far its images are moved, and what was measured to follow.

const MOST = 3; // units: further out a model has hardly been trained
const STEP = 0.1;
const FIRST = 5; // sliders that are always shown

const percent = (share) => `${Math.round(100 * share)} %`;

function evidence({ share, evidence }) {
  const follows = evidence
    .slice(0, 2)
    .map(({ concept, correlation }) => `${concept} ${correlation >= 0 ? "+" : "−"}${Math.abs(correlation).toFixed(2)}`);
  return `${percent(share)} of the change; follows ${follows.join(", ")}`;
}

export class Directions {
  // field: the element to fill. onInput: a slider moves. onChange: it has stopped.
  constructor(field, onInput, onChange) {
    this.field = field;
    this.onInput = onInput;
    this.onChange = onChange;
    this.amounts = new Map();
    this.known = [];
  }

  // Shows those of one model and class. known: of GET /v1/models/{model}/directions; label: null
  // where there are no classes. Amounts by name become amounts by number; those of directions that
  // aren't there are forgotten.
  show(known, label) {
    this.known = known.filter((each) => each.label === null || each.label === label);
    const keys = new Set(this.known.map(({ key }) => key));
    for (const [key, amount] of [...this.amounts]) {
      if (keys.has(key)) continue;
      this.amounts.delete(key);
      const named = this.known.find(({ name }) => name === key);
      if (named) this.set(named.key, amount);
    }
    this.field.hidden = this.known.length === 0;
    const rows = this.known.map((each) => this.#row(each));
    const more = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = `${rows.length - FIRST} more`;
    more.append(summary, ...rows.slice(FIRST));
    more.open = this.known.slice(FIRST).some(({ key }) => this.amounts.has(key));
    const reset = document.createElement("button");
    reset.type = "button";
    reset.id = "reset";
    reset.textContent = "Reset directions";
    reset.addEventListener("click", () => {
      this.amounts.clear();
      this.#fill();
      this.onChange();
    });
    this.field.querySelector(".rows").replaceChildren(
      ...rows.slice(0, FIRST),
      ...(rows.length > FIRST ? [more] : []),
      reset,
    );
    this.#fill();
  }

  #row(each) {
    const row = document.createElement("label");
    const head = document.createElement("span");
    head.className = "head";
    const name = document.createElement("span");
    name.textContent = each.name ? `${each.key}  ${each.name}` : `direction ${each.key}`;
    const output = document.createElement("output");
    head.append(name, output);
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: -MOST, max: MOST, step: STEP });
    slider.dataset.key = each.key;
    const note = document.createElement("small");
    note.textContent = evidence(each);
    note.id = `evidence-${each.key.replace(/\W/g, "-")}`;
    slider.setAttribute("aria-describedby", note.id);
    slider.addEventListener("input", () => {
      this.set(each.key, Number(slider.value));
      output.textContent = this.#told(each.key);
      this.onInput();
    });
    slider.addEventListener("change", () => this.onChange());
    row.append(head, slider, note);
    return row;
  }

  #told(key) {
    return (this.amounts.get(key) ?? 0).toFixed(1);
  }

  #fill() {
    for (const slider of this.field.querySelectorAll("input[type=range]")) {
      const { key } = slider.dataset;
      slider.value = this.amounts.get(key) ?? 0;
      slider.parentElement.querySelector("output").textContent = this.#told(key);
    }
  }

  set(key, amount) {
    if (amount) this.amounts.set(key, amount);
    else this.amounts.delete(key);
  }

  // As a field of a request's body; nothing where no slider is moved.
  body() {
    return this.amounts.size ? { directions: Object.fromEntries(this.amounts) } : {};
  }

  // As the parameters of an image's URL, which are those of the page's fragment, too.
  pairs() {
    return [...this.amounts].map(([key, amount]) => [/^\d+$/.test(key) ? `d${key}` : `d.${key}`, amount]);
  }

  // Takes the amounts from parameters, and forgets the others.
  recall(fields) {
    this.amounts.clear();
    for (const [name, value] of fields) {
      const key = /^d(\d+)$/.exec(name)?.[1] ?? /^d\.(.+)$/.exec(name)?.[1];
      const amount = Number(value);
      if (key !== undefined && Math.abs(amount) <= MOST) this.set(key, amount);
    }
  }

  // In words, for a caption.
  words() {
    const named = new Map(this.known.map(({ key, name }) => [key, name ?? `direction ${key}`]));
    return [...this.amounts].map(([key, amount]) => `${named.get(key)} ${amount > 0 ? "+" : "−"}${Math.abs(amount).toFixed(1)}`);
  }
}
