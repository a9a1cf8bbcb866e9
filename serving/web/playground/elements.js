// Elements of the page, made without markup in strings.

/**
 * @param {string} tag
 * @param {Record<string, any>} [fields] properties; those with a dash, and role, are attributes
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(tag, fields = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else /** @type {any} */ (made)[name] = value;
  }
  made.append(...children);
  return made;
}

/** @param {string} id @returns {any} */
export const at = (id) => document.getElementById(id);

/** @param {string} text @param {() => void} onclick @param {Record<string, any>} [fields] */
export const button = (text, onclick, fields = {}) =>
  element("button", { type: "button", onclick, textContent: text, ...fields });

/** @param {Blob} data @param {string} name */
export function save(data, name) {
  const link = element("a", { href: URL.createObjectURL(data), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Shows small images pixel by pixel, and transparent ones on squares. @param {any} model */
export const lookOf = ({ image }) =>
  [image.width < 96 && "small", image.channels === 4 && "alpha"].filter(Boolean).join(" ");
