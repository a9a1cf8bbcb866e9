// @ts-check
// The form of parameters, built from the server's catalogue.

/** @typedef {{[name: string]: string}} Query */

export class Controls {
  /**
   * @param {HTMLFormElement} form
   * @param {any} catalogue
   * @param {(name: string, text: string) => void} changed
   */
  constructor(form, catalogue, changed) {
    this.form = form;
    this.catalogue = catalogue;
    this.changed = changed;
    /** @type {{[name: string]: {row: HTMLElement, get: () => string, set: (text: string) => void, wrong: HTMLElement, inputs: HTMLElement[]}}} */
    this.fields = {};
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const [index, [group, names]] of Object.entries(catalogue.groups).entries()) {
      const details = form.appendChild(document.createElement("details"));
      details.open = index < 2;
      details.appendChild(document.createElement("summary")).textContent = group;
      for (const name of names) {
        if (name === "regularizers") this.addTerms(details);
        else this.addField(details, name);
      }
    }
  }

  /** @param {HTMLElement} parent @param {string} name */
  addField(parent, name) {
    const spec = this.catalogue.fields[name];
    const row = parent.appendChild(document.createElement("div"));
    row.className = "field";
    const id = `field-${name.replace(".", "-")}`;
    const label = row.appendChild(document.createElement("label"));
    label.htmlFor = id;
    label.textContent = spec.label;
    /** @type {HTMLInputElement | HTMLSelectElement} */
    let input;
    if (spec.choices || spec.kind === "bool") {
      input = document.createElement("select");
      for (const choice of spec.choices ?? ["false", "true"]) {
        const option = input.appendChild(document.createElement("option"));
        option.value = choice;
        option.textContent = spec.kind === "bool" ? (choice === "true" ? "yes" : "no") : choice;
        option.title = this.catalogue.papers[choice] ?? "";
      }
    } else {
      input = document.createElement("input");
      input.type = "text";
      input.inputMode = "decimal";
    }
    input.id = id;
    input.name = name;
    row.append(input);
    const wrong = this.addWrong(row, input);
    input.addEventListener("change", () => this.changed(name, input.value.trim()));
    this.fields[name] = { row, wrong, inputs: [input], get: () => input.value.trim(), set: (text) => (input.value = text) };
  }

  /** A row for each penalty, constraint and noise. @param {HTMLElement} parent */
  addTerms(parent) {
    const set = parent.appendChild(document.createElement("fieldset"));
    const legend = set.appendChild(document.createElement("legend"));
    legend.textContent = this.catalogue.fields.regularizers.label;
    const head = set.appendChild(document.createElement("div"));
    head.className = "term term-head";
    head.setAttribute("aria-hidden", "true");
    for (const text of ["", "weight", "every"]) head.appendChild(document.createElement("span")).textContent = text;
    /** @type {{name: string, box: HTMLInputElement, weight: HTMLInputElement, every: HTMLInputElement}[]} */
    const terms = [];
    const told = () => this.changed("regularizers", get());
    for (const { name, paper } of this.catalogue.regularizers) {
      const row = set.appendChild(document.createElement("div"));
      row.className = "term";
      row.title = paper;
      const label = row.appendChild(document.createElement("label"));
      const box = label.appendChild(document.createElement("input"));
      box.type = "checkbox";
      box.dataset.term = name;
      label.append(` ${name}`);
      const number = (/** @type {string} */ what, /** @type {string} */ value) => {
        const input = row.appendChild(document.createElement("input"));
        input.type = "text";
        input.inputMode = "decimal";
        input.value = value;
        input.setAttribute("aria-label", `${what} of ${name}`);
        input.addEventListener("change", () => box.checked && told());
        return input;
      };
      const [weight, every] = [number("weight", "0.1"), number("interval", "1")];
      box.addEventListener("change", told);
      terms.push({ name, box, weight, every });
    }
    const get = () =>
      terms
        .filter(({ box }) => box.checked)
        .map(({ name, weight, every }) => `${name}=${weight.value.trim()}${every.value.trim() === "1" ? "" : `/${every.value.trim()}`}`)
        .join(" ");
    const wrong = this.addWrong(set, set);
    this.fields.regularizers = {
      row: set,
      wrong,
      inputs: terms.map(({ box }) => box),
      get,
      set: (text) => {
        const given = new Map(text.split(/[\s,]+/).filter(Boolean).map((word) => {
          const [name, rest = ""] = word.split("=");
          return [name, rest.split("/")];
        }));
        for (const { name, box, weight, every } of terms) {
          const found = given.get(name);
          box.checked = found !== undefined;
          if (found) [weight.value, every.value] = [found[0], found[1] ?? "1"];
        }
      },
    };
  }

  /** @param {HTMLElement} row @param {HTMLElement} input */
  addWrong(row, input) {
    const wrong = row.appendChild(document.createElement("p"));
    wrong.className = "wrong";
    wrong.setAttribute("role", "alert");
    wrong.hidden = true;
    wrong.id = `wrong-${Math.random().toString(36).slice(2)}`;
    input.setAttribute("aria-describedby", wrong.id);
    return wrong;
  }

  /** Shows a game's parameters, and which of them are its own. @param {Query} query @param {Query} [own] */
  show(query, own) {
    for (const [name, field] of Object.entries(this.fields)) {
      const text = query[name] ?? this.catalogue.fields[name].default;
      if (field.get() !== text) field.set(text);
      field.row.classList.toggle("of-b", own !== undefined && name in own);
      const used = isUsed(this.catalogue, name, query);
      field.row.classList.toggle("idle", !used);
      for (const input of field.inputs) /** @type {HTMLInputElement} */ (input).disabled = !used;
    }
  }

  /** Says in words what is wrong with a field. @param {string} name @param {string} text @returns false where the page has no such field */
  refuse(name, text) {
    this.accept();
    const field = this.fields[name];
    if (!field) return false;
    field.wrong.textContent = text;
    field.wrong.hidden = false;
    for (const input of field.inputs) input.setAttribute("aria-invalid", "true");
    const details = field.row.closest("details");
    if (details) details.open = true;
    return true;
  }

  /** Nothing is wrong any more. */
  accept() {
    for (const field of Object.values(this.fields)) {
      field.wrong.hidden = true;
      for (const input of field.inputs) input.removeAttribute("aria-invalid");
    }
  }
}

/** Whether another parameter lets this one count. @param {any} catalogue @param {string} name @param {Query} query */
export function isUsed(catalogue, name, query) {
  const rule = catalogue.usedWith[name];
  if (!rule) return true;
  const value = query[rule.name] ?? catalogue.fields[rule.name].default;
  return rule.in ? rule.in.includes(value) : !rule.not.includes(value);
}

/** Without defaults, and without what nothing looks at. @param {any} catalogue @param {Query} query @returns {Query} */
export function tidy(catalogue, query) {
  return Object.fromEntries(
    Object.entries(query).filter(([name, text]) => text !== catalogue.fields[name]?.default && isUsed(catalogue, name, query)),
  );
}
