// What can be measured on an image's pixels, to sort a wall by: the measures of
// training/interpretation/concepts.py that need no classifier.

const SIDE = 64; // larger images are measured on a smaller copy

/** @typedef {{width: number, height: number, red: Float64Array, green: Float64Array, blue: Float64Array,
 *  grey: Float64Array, alpha: Float64Array, hasAlpha: boolean}} Pixels  each 0 .. 1, row by row */

/** How far each pixel lies from the background, which is the median of the border.
 * @param {Pixels} pixels */
function ink({ width, height, grey, alpha, hasAlpha }) {
  if (hasAlpha) return alpha;
  const border = [...grey].filter((_, i) => {
    const [x, y] = [i % width, Math.floor(i / width)];
    return x === 0 || y === 0 || x === width - 1 || y === height - 1;
  });
  border.sort((a, b) => a - b);
  const background = border[border.length >> 1];
  return grey.map((value) => Math.abs(value - background));
}

/** @param {Float64Array} values */
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** @param {Float64Array} values */
function spread(values) {
  const middle = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - middle) ** 2)));
}

/** @param {Pixels} pixels the leaning of the ink, to the right for each pixel upwards */
function slant(pixels) {
  const mask = ink(pixels);
  let [area, sumX, sumY] = [0, 0, 0];
  const place = (/** @type {number} */ i) => [i % pixels.width, Math.floor(i / pixels.width)];
  mask.forEach((value, i) => {
    const [x, y] = place(i);
    [area, sumX, sumY] = [area + value, sumX + value * x, sumY + value * y];
  });
  if (!area) return 0;
  let [yx, yy] = [0, 0];
  mask.forEach((value, i) => {
    const [x, y] = place(i);
    yx += value * (y - sumY / area) * (x - sumX / area);
    yy += value * (y - sumY / area) ** 2;
  });
  return yy ? -yx / yy : 0;
}

/** @param {Pixels} pixels */
const saturation = ({ red, green, blue }) =>
  mean(red.map((r, i) => {
    const high = Math.max(r, green[i], blue[i]);
    return high ? (high - Math.min(r, green[i], blue[i])) / high : 0;
  }));

/** @type {Record<string, (pixels: Pixels) => number>} */
export const MEASURES = {
  brightness: ({ grey }) => mean(grey),
  contrast: ({ grey }) => spread(grey),
  area: (pixels) => mean(ink(pixels)),
  slant,
  saturation,
  warmth: ({ red, blue }) => mean(red.map((r, i) => r - blue[i])),
};

/** Those that a model's images can differ in. @param {any} model */
export const measuresOf = (model) =>
  Object.keys(MEASURES).filter((name) => model.image.channels > 1 || !["saturation", "warmth"].includes(name));

const canvas = document.createElement("canvas");

/** The pixels of an image, as bytes. @param {CanvasImageSource & {naturalWidth: number, naturalHeight: number}} image
 * @param {number} [most] pixels of its longer side */
export function bytesOf(image, most = Infinity) {
  const scale = Math.min(1, most / Math.max(image.naturalWidth, image.naturalHeight));
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** @param {any} image that is loaded. @param {(pixels: Pixels) => number} measure */
export function measured(image, measure) {
  if (!image.naturalWidth) return 0;
  const { width, height, data } = bytesOf(image, SIDE);
  const plane = (/** @type {number} */ offset) =>
    Float64Array.from({ length: width * height }, (_, i) => data[4 * i + offset] / 255);
  const [red, green, blue, alpha] = [0, 1, 2, 3].map(plane);
  const grey = red.map((r, i) => 0.299 * r + 0.587 * green[i] + 0.114 * blue[i]);
  return measure({ width, height, red, green, blue, grey, alpha, hasAlpha: alpha.some((a) => a < 1) });
}
