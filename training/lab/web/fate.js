// @ts-check
// The panel Fate: the path that the spectrum predicts, drawn first, then the real one over it.

import { drawPlane, told } from "./charts.js";
import { colour, fit } from "./colours.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const POINTS_MS = 25;
const MOST = 4; // times the predicted path's reach, beyond which it isn't drawn to scale
/** @type {{[name: string]: (string | string[])[]}} label, default, choices */
const OPTIONS = {
  game: ["Game", "dirac", ["dirac", "lq"]],
  objective: ["Objective", "minimax"],
  regularizers: ["Penalties", ""],
  update: ["Update rule", "simultaneous"],
  lr: ["Step", "0.2"],
  momentum: ["Momentum", "0.0"],
  rounds: ["Rounds", "100"],
  theta: ["Start", "0.5"],
};

export class Fate {
  /** @param {HTMLElement} root @param {any} catalogue @param {() => void} changed */
  constructor(root, catalogue, changed) {
    this.form = /** @type {HTMLFormElement} */ (root.querySelector("form"));
    this.path = /** @type {HTMLCanvasElement} */ (root.querySelector("#fate-path"));
    this.plane = /** @type {HTMLCanvasElement} */ (root.querySelector("#fate-plane"));
    this.say = /** @type {HTMLElement} */ (root.querySelector("#fate-say"));
    /** @type {{[name: string]: HTMLInputElement | HTMLSelectElement}} */
    this.inputs = {};
    for (const [name, [label, value, choices]] of Object.entries(OPTIONS)) {
      const row = this.form.appendChild(document.createElement("div"));
      row.className = "field";
      const tag = row.appendChild(document.createElement("label"));
      tag.textContent = String(label);
      tag.htmlFor = `fate-${name}`;
      const known = choices ?? catalogue.fields[name]?.choices;
      const input = document.createElement(known ? "select" : "input");
      if (known) for (const each of known) input.appendChild(document.createElement("option")).textContent = each;
      else input.setAttribute("type", "text");
      input.id = `fate-${name}`;
      input.value = String(value);
      row.append(input);
      input.addEventListener("change", () => {
        changed();
        this.ask();
      });
      this.inputs[name] = input;
    }
    this.wrong = this.form.appendChild(document.createElement("p"));
    this.wrong.className = "wrong";
    this.wrong.setAttribute("role", "alert");
    const again = this.form.appendChild(document.createElement("button"));
    again.type = "submit";
    again.textContent = "Play it";
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    this.shown = 0;
  }

  /** What is other than at the beginning. @returns {{[name: string]: string}} */
  get query() {
    const given = Object.entries(this.inputs).map(([name, input]) => [name, input.value.trim()]);
    return Object.fromEntries(given.filter(([name, text]) => text !== String(OPTIONS[name][1])));
  }

  /** @param {{[name: string]: string}} query */
  set(query) {
    for (const [name, input] of Object.entries(this.inputs)) input.value = query[name] ?? String(OPTIONS[name][1]);
    this.ask();
  }

  async ask() {
    const query = new URLSearchParams(Object.entries(this.inputs).map(([name, input]) => [name, input.value.trim()]));
    const number = (this.number = (this.number ?? 0) + 1);
    let found;
    try {
      const reply = await fetch(`fate?${query}`);
      found = await reply.json();
      if (number !== this.number) return;
      this.wrong.textContent = reply.ok ? "" : found.text;
      if (!reply.ok) return;
    } catch {
      if (number !== this.number) return;
      this.wrong.textContent = "The server does not answer.";
      return;
    }
    this.found = found;
    this.shown = calm.matches ? found.played.length : 1;
    this.tell();
    this.redraw();
    if (!calm.matches) this.play();
  }

  tell() {
    const { found } = this;
    if (found.unpredicted) {
      this.say.textContent = `No prediction: ${found.unpredicted}. Played: ${found.verdict}.`;
      return;
    }
    const step = this.inputs.lr.value;
    const limit = found.alwaysStable ? "every step is stable" : found.limit ? `stable up to a step of ${told(found.limit)}` : "no step is stable";
    this.say.textContent = `Predicted: radius ${found.radius.toFixed(4)} at a step of ${step}, ${limit}. Played: it ${found.verdict}.`;
  }

  play() {
    cancelAnimationFrame(this.timer ?? 0);
    const start = performance.now();
    const turn = () => {
      this.shown = Math.min(this.found.played.length, 1 + Math.floor((performance.now() - start) / POINTS_MS));
      this.drawPath();
      if (this.shown < this.found.played.length) this.timer = requestAnimationFrame(turn);
    };
    this.timer = requestAnimationFrame(turn);
  }

  redraw() {
    if (!this.found) return;
    this.drawPath();
    const mu = this.found.mu ?? [];
    drawPlane(this.plane, [{ values: mu, tone: "fake" }], [], `${mu.length} eigenvalues of a round, and the unit circle`);
  }

  drawPath() {
    const { path, found } = this;
    const scale = fit(path);
    const context = path.getContext("2d");
    const size = path.width;
    if (!context || !size) return;
    const [x0, y0] = found.origin;
    const far = (/** @type {number[][]} */ list) => Math.max(0.1, ...list.map(([x, y]) => Math.max(Math.abs(x - x0), Math.abs(y - y0))));
    const start = far([found.played[0]]);
    const reach = 1.15 * Math.min(Math.max(far(found.played), far(found.predicted ?? [])), MOST * Math.max(start, 0.25));
    const place = (/** @type {number[]} */ [x, y]) => [size / 2 + ((x - x0) / reach) * (size / 2), path.height / 2 - ((y - y0) / reach) * (size / 2)];
    context.clearRect(0, 0, size, path.height);
    context.strokeStyle = colour("line");
    context.lineWidth = scale;
    context.beginPath();
    context.moveTo(0, path.height / 2);
    context.lineTo(size, path.height / 2);
    context.moveTo(size / 2, 0);
    context.lineTo(size / 2, path.height);
    context.stroke();
    const line = (/** @type {number[][]} */ points, /** @type {string} */ tone, /** @type {number[]} */ dash, /** @type {number} */ width) => {
      context.strokeStyle = colour(tone);
      context.lineWidth = width * scale;
      context.setLineDash(dash.map((each) => each * scale));
      context.beginPath();
      points.forEach((point, i) => {
        const [x, y] = place(point);
        if (i) context.lineTo(x, y);
        else context.moveTo(x, y);
      });
      context.stroke();
      context.setLineDash([]);
    };
    if (found.predicted) line(found.predicted, "average", [5, 4], 1.4);
    const played = found.played.slice(0, this.shown);
    line(played, "fake", [], 1.8);
    context.fillStyle = colour("fake");
    const [x, y] = place(played[played.length - 1]);
    context.beginPath();
    context.arc(x, y, 3.5 * scale, 0, 7);
    context.fill();
    context.fillStyle = colour("quiet");
    context.font = `${10 * scale}px system-ui, sans-serif`;
    context.fillText(`G →  ±${told(reach)} around (${told(x0)}, ${told(y0)});  D ↑`, 4 * scale, path.height - 5 * scale);
    path.setAttribute("aria-label", `Path of the small game: ${this.say.textContent}`);
  }
}
