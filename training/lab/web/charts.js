// @ts-check
// Small charts of a game's course, and eigenvalues in the complex plane.

import { colour, fit } from "./colours.js";

const MOST = 600; // values of a line; beyond it every second one is dropped
const PAD = 4;
const LABEL = 12; // pixels of a line of numbers, above and below the lines

export const told = (/** @type {number | null | undefined} */ value) =>
  value == null || !Number.isFinite(value) ? "–" : Number(value.toPrecision(3)).toString();

export class Chart {
  /** @param {HTMLElement} parent @param {string} title @param {{[label: string]: string}} lines label to colour @param {boolean} [log] */
  constructor(parent, title, lines, log = false) {
    this.log = log;
    this.title = title;
    this.lines = Object.entries(lines);
    this.values = this.lines.map(() => /** @type {number[]} */ ([]));
    this.rounds = /** @type {number[]} */ ([]);
    const figure = parent.appendChild(document.createElement("figure"));
    const caption = figure.appendChild(document.createElement("figcaption"));
    caption.append(title);
    this.outputs = this.lines.map(([label, tone]) => {
      const key = caption.appendChild(document.createElement("i"));
      key.className = `tone-${tone}`;
      key.style.setProperty("color", `var(--${tone})`);
      key.append(label, " ");
      return key.appendChild(document.createElement("span"));
    });
    this.canvas = figure.appendChild(document.createElement("canvas"));
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", title);
  }

  clear() {
    this.rounds.length = 0;
    for (const line of this.values) line.length = 0;
  }

  /** @param {number} round @param {(number | null | undefined)[]} values */
  add(round, values) {
    if (this.rounds.length && round <= this.rounds[this.rounds.length - 1]) {
      const keep = this.rounds.findIndex((each) => each >= round);
      this.rounds.length = keep;
      for (const line of this.values) line.length = keep;
    }
    this.rounds.push(round);
    values.forEach((value, index) => this.values[index].push(value ?? NaN));
    if (this.rounds.length > MOST) {
      const half = (/** @type {number[]} */ list) => list.filter((_, i) => i % 2 === 0);
      this.rounds = half(this.rounds);
      this.values = this.values.map(half);
    }
  }

  draw() {
    const scale = fit(this.canvas);
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    if (!context || !width) return;
    context.clearRect(0, 0, width, height);
    const height_of = (/** @type {number} */ v) => (this.log ? Math.log10(Math.max(v, 1e-9)) : v);
    let [low, high] = [Infinity, -Infinity];
    for (const line of this.values) {
      for (const v of line) {
        const h = height_of(v);
        if (h < low) low = h;
        if (h > high) high = h;
      }
    }
    if (!(high > low)) [low, high] = [low - 0.5, low + 0.5];
    const first = this.rounds[0] ?? 0;
    const span = Math.max(1, (this.rounds[this.rounds.length - 1] ?? 1) - first);
    const pad = (PAD + LABEL) * scale;
    const y_of = (/** @type {number} */ h) => height - pad - ((h - low) / (high - low)) * (height - 2 * pad);
    context.strokeStyle = colour("line");
    context.lineWidth = scale;
    if (!this.log && low < 0 && high > 0) {
      context.beginPath();
      context.moveTo(0, y_of(0));
      context.lineTo(width, y_of(0));
      context.stroke();
    }
    context.lineWidth = 1.4 * scale;
    this.values.forEach((line, index) => {
      context.strokeStyle = colour(this.lines[index][1]);
      context.beginPath();
      let drawn = false;
      line.forEach((v, i) => {
        if (!Number.isFinite(v)) return;
        const x = ((this.rounds[i] - first) / span) * width;
        const y = y_of(height_of(v));
        if (drawn) context.lineTo(x, y);
        else context.moveTo(x, y);
        drawn = true;
      });
      context.stroke();
      this.outputs[index].textContent = told(line[line.length - 1]);
    });
    context.fillStyle = colour("quiet");
    context.font = `${10 * scale}px system-ui, sans-serif`;
    const number = (/** @type {number} */ h) => told(this.log ? 10 ** h : h);
    context.fillText(number(high), 2 * scale, 10 * scale);
    context.fillText(number(low), 2 * scale, height - 2 * scale);
  }
}

/**
 * Draws numbers of the complex plane over a region.
 * @param {HTMLCanvasElement} canvas
 * @param {{values: number[][], tone: string}[]} groups
 * @param {number[][]} border points of the region's edge; empty for the unit circle
 * @param {string} note what is drawn, in words
 */
export function drawPlane(canvas, groups, border, note) {
  const scale = fit(canvas);
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  if (!context || !width) return;
  const circle = Array.from({ length: 97 }, (_, i) => [Math.cos((i * Math.PI) / 48), Math.sin((i * Math.PI) / 48)]);
  const edge = border.length ? border : circle;
  const xs = edge.map(([x]) => x);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const all = groups.flatMap(({ values }) => values);
  const centre = (left + right) / 2;
  let reach = Math.max((right - left) / 2, ...edge.map(([, y]) => Math.abs(y)));
  const beyond = Math.max(0, ...all.map(([x, y]) => Math.max(Math.abs(x - centre), Math.abs(y))));
  reach = 1.15 * Math.max(reach, Math.min(beyond, 4 * reach));
  const unit = Math.min(width, height) / 2 / reach;
  const place = (/** @type {number[]} */ [x, y]) => [
    width / 2 + Math.max(-reach, Math.min(reach, x - centre)) * unit,
    height / 2 - Math.max(-reach, Math.min(reach, y)) * unit,
  ];
  context.clearRect(0, 0, width, height);
  context.beginPath();
  edge.forEach((point, i) => {
    const [x, y] = place(point);
    if (i) context.lineTo(x, y);
    else context.moveTo(x, y);
  });
  context.closePath();
  context.fillStyle = context.strokeStyle = colour("good");
  context.globalAlpha = 0.14;
  context.fill();
  context.globalAlpha = 1;
  context.lineWidth = scale;
  context.stroke();
  context.strokeStyle = colour("quiet");
  context.globalAlpha = 0.6;
  context.beginPath();
  const [zeroX, zeroY] = place([0, 0]);
  context.moveTo(0, zeroY);
  context.lineTo(width, zeroY);
  context.moveTo(zeroX, 0);
  context.lineTo(zeroX, height);
  context.stroke();
  context.globalAlpha = 0.85;
  for (const { values, tone } of groups) {
    context.fillStyle = colour(tone);
    for (const value of values) {
      const [x, y] = place(value);
      context.beginPath();
      context.arc(x, y, 3 * scale, 0, 7);
      context.fill();
    }
  }
  context.globalAlpha = 1;
  context.fillStyle = colour("quiet");
  context.font = `${10 * scale}px system-ui, sans-serif`;
  context.fillText(`±${told(reach)}`, 3 * scale, height - 4 * scale);
  canvas.setAttribute("aria-label", note);
}
