// @ts-check
// Points that are drawn with the mouse, or come as a CSV file.

import { colour } from "./colours.js";

const SPAN = 1.5; // as models/networks/plane.py
const LEVELS = 65535;
const BRUSH = 0.04; // spread of the points around the pointer
const PER_MOVE = 3;
const SHARE = 0.98;

export class Pad {
  /** @param {HTMLElement} root @param {number} most @param {(packed: string) => void} use @param {(text: string) => void} refuse */
  constructor(root, most, use, refuse) {
    this.most = most;
    this.use = use;
    this.refuse = refuse;
    const at = (/** @type {string} */ id) => /** @type {any} */ (root.querySelector(id));
    this.root = root;
    this.canvas = /** @type {HTMLCanvasElement} */ (at("#pad-canvas"));
    this.count = at("#pad-count");
    /** @type {number[][]} */
    this.points = [];
    at("#pad-clear").addEventListener("click", () => this.set([]));
    at("#pad-use").addEventListener("click", () => this.send());
    at("#pad-file").addEventListener("change", (/** @type {any} */ event) => this.read(event.target.files[0]));
    const brush = (/** @type {PointerEvent} */ event) => {
      if (!(event.buttons & 1)) return;
      const box = this.canvas.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * 2 - 1;
      const y = 1 - ((event.clientY - box.top) / box.height) * 2;
      for (let i = 0; i < PER_MOVE && this.points.length < this.most; i++) {
        const spread = () => (Math.random() + Math.random() - 1) * BRUSH;
        this.points.push([SPAN * (x + spread()), SPAN * (y + spread())]);
      }
      this.draw();
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      brush(event);
    });
    this.canvas.addEventListener("pointermove", brush);
    document.body.addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    document.body.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
    document.body.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      const file = event.dataTransfer?.files[0];
      if (file) this.read(file);
    });
  }

  /** @param {File | undefined} file */
  async read(file) {
    if (!file) return;
    const rows = (await file.text()).split(/\r?\n/).filter((line) => line.trim());
    /** @type {number[][]} */
    const found = [];
    for (const [index, line] of rows.entries()) {
      const cells = line.split(/[,;\t]/).map(Number);
      if (cells.length === 2 && cells.every(Number.isFinite) && line.trim() !== "") found.push(cells);
      else if (index > 0) {
        this.refuse(`${file.name}: line ${index + 1} is "${line.slice(0, 40)}", allowed: two numbers, x,y; mend that line`);
        return;
      }
    }
    if (found.length < 2) {
      this.refuse(`${file.name}: it holds ${found.length} points, allowed: 2 or more; give a line x,y for each`);
      return;
    }
    // Evenly spaced ones where there are too many, then into the pad's square.
    const kept = found.length <= this.most ? found : Array.from({ length: this.most }, (_, i) => found[Math.floor((i * found.length) / this.most)]);
    const middle = [0, 1].map((k) => (Math.min(...kept.map((p) => p[k])) + Math.max(...kept.map((p) => p[k]))) / 2);
    const reach = Math.max(...kept.map((p) => Math.max(Math.abs(p[0] - middle[0]), Math.abs(p[1] - middle[1]))), 1e-12);
    this.set(kept.map((p) => [0, 1].map((k) => ((p[k] - middle[k]) / reach) * SPAN * SHARE)));
    this.send();
  }

  /** @param {number[][]} points */
  set(points) {
    this.points = points;
    this.draw();
  }

  /** Shows points that a link brought. @param {string} text */
  unpack(text) {
    const raw = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(raw, (each) => each.charCodeAt(0));
    const points = [];
    for (let i = 0; i + 3 < bytes.length; i += 4) {
      points.push([bytes[i] + 256 * bytes[i + 1], bytes[i + 2] + 256 * bytes[i + 3]].map((level) => ((level / LEVELS) * 2 - 1) * SPAN));
    }
    this.set(points);
  }

  send() {
    if (this.points.length < 2) {
      this.refuse("points is fewer than 2, allowed: 2 or more; draw some on the pad, or choose a CSV file");
      return;
    }
    const bytes = new Uint8Array(4 * this.points.length);
    this.points.flat().forEach((value, i) => {
      const level = Math.max(0, Math.min(LEVELS, Math.round(((value / SPAN + 1) / 2) * LEVELS)));
      bytes[2 * i] = level % 256;
      bytes[2 * i + 1] = level >> 8;
    });
    const text = btoa(String.fromCharCode(...bytes));
    this.use(text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", ""));
  }

  draw() {
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const { width } = this.canvas;
    context.clearRect(0, 0, width, width);
    context.fillStyle = colour("real");
    for (const [x, y] of this.points) context.fillRect(((x / SPAN + 1) / 2) * width - 2, ((1 - y / SPAN) / 2) * width - 2, 4, 4);
    this.count.textContent = `${this.points.length} of ${this.most} points`;
  }
}
