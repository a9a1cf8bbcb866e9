// @ts-check
// Colours of the page's style as numbers, for canvases; read again when the theme changes.

const probe = document.createElement("span");
probe.hidden = true;
/** @type {Map<string, string>} */
const known = new Map();

/** A custom property as a colour that a canvas takes. @param {string} name */
export function colour(name) {
  const found = known.get(name);
  if (found) return found;
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  const value = getComputedStyle(probe).color;
  known.set(name, value);
  return value;
}

/** Red, green and blue of a custom property. @param {string} name @returns {number[]} */
export function rgb(name) {
  return (colour(name).match(/[\d.]+/g) ?? ["0", "0", "0"]).slice(0, 3).map(Number);
}

/** Forgets all colours: the theme has changed. */
export function forgetColours() {
  known.clear();
}

/** Gives a canvas as many pixels as the screen has where it stands. @param {HTMLCanvasElement} canvas */
export function fit(canvas) {
  const scale = Math.min(devicePixelRatio || 1, 2);
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return scale;
}
