// @ts-check
// The plane of one game on a canvas: D's surface, both clouds, G's grid, gradients.

import { colour, fit, rgb } from "./colours.js";

const ARROW = 0.35; // of the plane's half width, for the longest gradient of a frame

/** @typedef {import("./connection.js").Frame} Frame */

export class Board {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    const context = canvas.getContext("2d", { alpha: false });
    if (!context) throw new Error("no canvas");
    this.context = context;
    this.surface = document.createElement("canvas");
    /** @type {ImageData | undefined} */
    this.pixels = undefined;
    this.painted = -1;
  }

  /**
   * @param {{[name: string]: any}} game what doesn't change
   * @param {Frame} frame the newest
   * @param {Frame | undefined} before the one before it
   * @param {number} share how far to go from it to the newest, 0 to 1
   * @param {Set<string>} layers what is drawn
   */
  draw(game, frame, before, share, layers) {
    const scale = fit(this.canvas);
    const { context, canvas } = this;
    const size = canvas.width;
    if (!size) return;
    const half = size / 2 / game.extent;
    const at = (/** @type {number} */ v) => size / 2 + v * half;
    context.fillStyle = colour("panel");
    context.fillRect(0, 0, size, canvas.height);
    if (layers.has("surface")) this.drawSurface(game, frame, size);
    if (layers.has("real")) this.drawReal(game, at, scale);
    const arrays = between(frame, before, share);
    if (layers.has("manifold") && game.manifold) this.drawGrid(arrays.manifold, game.manifold, at, scale);
    if (layers.has("average")) this.dots(arrays.average, at, 1.4 * scale, "average");
    if (layers.has("points")) this.dots(arrays.points, at, 1.6 * scale, "fake");
    if (layers.has("arrows")) this.drawArrows(arrays.points, arrays.arrows, game, half, scale);
  }

  /** @param {any} game @param {Frame} frame @param {number} size */
  drawSurface(game, frame, size) {
    const num = game.surface;
    const values = frame.arrays.surface;
    if (this.painted !== frame.head.sequence) {
      this.painted = frame.head.sequence;
      if (!this.pixels || this.pixels.width !== num) {
        this.surface.width = this.surface.height = num;
        this.pixels = new ImageData(num, num);
      }
      const sorted = Float32Array.from(values).sort();
      const low = sorted[Math.floor(0.02 * sorted.length)];
      const high = sorted[Math.floor(0.98 * sorted.length)];
      const middle = game.signed ? 0 : (low + high) / 2;
      const reach = Math.max(high - middle, middle - low, 1e-9);
      const [up, mid, down] = [rgb("high"), rgb("mid"), rgb("low")];
      const { data } = this.pixels;
      for (let i = 0; i < values.length; i++) {
        const v = Math.max(-1, Math.min(1, (values[i] - middle) / reach));
        const end = v > 0 ? up : down;
        const part = Math.abs(v);
        for (let k = 0; k < 3; k++) data[4 * i + k] = mid[k] + (end[k] - mid[k]) * part;
        data[4 * i + 3] = 255;
      }
      this.surface.getContext("2d")?.putImageData(this.pixels, 0, 0);
    }
    this.context.imageSmoothingEnabled = true;
    // Values stand at the corners of the plane, pixels at the middles of theirs.
    const more = size / (num - 1) / 2;
    this.context.drawImage(this.surface, -more, -more, size + 2 * more, size + 2 * more);
  }

  /** @param {any} game @param {(v: number) => number} at @param {number} scale */
  drawReal(game, at, scale) {
    const { context } = this;
    const size = 2.2 * scale;
    context.fillStyle = colour("real");
    context.globalAlpha = 0.55;
    for (const [x, y] of game.real) context.fillRect(at(x) - size / 2, at(-y) - size / 2, size, size);
    context.globalAlpha = 1;
    context.strokeStyle = colour("real");
    context.lineWidth = scale;
    for (const [x, y] of game.modes) {
      context.beginPath();
      context.arc(at(x), at(-y), 7 * scale, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  /** @param {Float32Array} points @param {(v: number) => number} at @param {number} radius @param {string} name */
  dots(points, at, radius, name) {
    const { context } = this;
    context.fillStyle = colour(name);
    context.globalAlpha = 0.8;
    context.beginPath();
    for (let i = 0; i < points.length; i += 2) {
      const x = at(points[i]);
      const y = at(-points[i + 1]);
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 7);
    }
    context.fill();
    context.globalAlpha = 1;
  }

  /** @param {Float32Array} grid @param {number} num @param {(v: number) => number} at @param {number} scale */
  drawGrid(grid, num, at, scale) {
    const { context } = this;
    context.strokeStyle = colour("grid");
    context.lineWidth = 0.7 * scale;
    context.globalAlpha = 0.6;
    context.beginPath();
    for (let row = 0; row < num; row++) {
      for (let along = 0; along < 2; along++) {
        for (let k = 0; k < num; k++) {
          const i = 2 * (along ? k * num + row : row * num + k);
          if (k) context.lineTo(at(grid[i]), at(-grid[i + 1]));
          else context.moveTo(at(grid[i]), at(-grid[i + 1]));
        }
      }
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  /** @param {Float32Array} points @param {Float32Array} arrows @param {any} game @param {number} half @param {number} scale */
  drawArrows(points, arrows, game, half, scale) {
    let longest = 1e-12;
    for (let i = 0; i < arrows.length; i += 2) longest = Math.max(longest, Math.hypot(arrows[i], arrows[i + 1]));
    const unit = (ARROW * game.extent) / longest;
    const { context } = this;
    const middle = this.canvas.width / 2;
    context.strokeStyle = colour("ink");
    context.lineWidth = 0.9 * scale;
    context.globalAlpha = 0.75;
    context.beginPath();
    for (let i = 0; i < arrows.length; i += 2) {
      const x = middle + points[i] * half;
      const y = middle - points[i + 1] * half;
      const dx = arrows[i] * unit * half;
      const dy = -arrows[i + 1] * unit * half;
      if (Math.hypot(dx, dy) < 2 * scale) continue;
      context.moveTo(x, y);
      context.lineTo(x + dx, y + dy);
      const angle = Math.atan2(dy, dx);
      for (const turn of [2.6, -2.6]) {
        context.moveTo(x + dx, y + dy);
        context.lineTo(x + dx + 4 * scale * Math.cos(angle + turn), y + dy + 4 * scale * Math.sin(angle + turn));
      }
    }
    context.stroke();
    context.globalAlpha = 1;
  }
}

/** Arrays on the way from one frame to the next: the same latents, so point i is point i.
 * @param {Frame} frame @param {Frame | undefined} before @param {number} share */
function between(frame, before, share) {
  if (!before || share >= 1) return frame.arrays;
  /** @type {{[name: string]: Float32Array}} */
  const found = {};
  for (const name of ["points", "average", "manifold", "arrows"]) {
    const [old, now] = [before.arrays[name], frame.arrays[name]];
    found[name] = old.length === now.length ? now.map((v, i) => old[i] + (v - old[i]) * share) : now;
  }
  return found;
}
