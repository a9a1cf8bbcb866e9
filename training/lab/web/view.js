// @ts-check
// One game on the page: its connection, its board, its figures.

import { Board } from "./board.js";
import { Chart, drawPlane, told } from "./charts.js";
import { Connection } from "./connection.js";

const FRAME_MS = 33; // from one frame that is asked for to the next
const CHARTS_EVERY = 6; // frames
const KEPT_TIMES = 600;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** @typedef {import("./connection.js").Frame} Frame */
/** @typedef {{[name: string]: string}} Query */

export class View {
  /**
   * @param {HTMLElement} parent
   * @param {string} name "A" or "B"
   * @param {Query} query
   * @param {{layers: Set<string>, spectra: boolean, wantsPlay: boolean, speed: number, isSigned: (name: string) => boolean}} wishes
   * @param {(view: View, event: string, detail?: any) => void} on
   */
  constructor(parent, name, query, wishes, on) {
    this.name = name;
    this.query = query;
    this.wishes = wishes;
    this.on = on;
    /** @type {any} */
    this.game = undefined;
    /** @type {Frame | undefined} */
    this.frame = undefined;
    /** @type {Frame | undefined} */
    this.before = undefined;
    this.arrived = 0;
    this.asked = -1e9;
    this.answered = -1e9; // when the frame that is shown was asked for
    this.played = -1e9; // when the game was last told to play
    this.isWaiting = false;
    this.resets = -1;
    this.num = 0;
    this.times = { draw: /** @type {number[]} */ ([]), frame: /** @type {number[]} */ ([]) };
    const root = parent.appendChild(document.createElement("article"));
    this.root = root;
    root.className = "game";
    root.setAttribute("aria-label", `Game ${this.name}`);
    this.title = root.appendChild(document.createElement("h3"));
    const canvas = root.appendChild(document.createElement("canvas"));
    canvas.className = "board";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Game ${this.name}: not started`);
    this.board = new Board(canvas);
    const side = root.appendChild(document.createElement("div"));
    side.className = "side";
    const facts = side.appendChild(document.createElement("dl"));
    facts.className = "facts";
    /** @type {{[name: string]: HTMLElement}} */
    this.facts = {};
    for (const label of ["round", "rounds a second", "modes", "good points", "reverse KL", "|v|", "digest at 500"]) {
      const cell = facts.appendChild(document.createElement("div"));
      cell.appendChild(document.createElement("dt")).textContent = label;
      this.facts[label] = cell.appendChild(document.createElement("dd"));
      this.facts[label].textContent = "–";
    }
    this.failure = side.appendChild(document.createElement("p"));
    this.failure.className = "wrong";
    this.failure.setAttribute("role", "alert");
    const charts = side.appendChild(document.createElement("div"));
    charts.className = "charts";
    this.charts = [
      new Chart(charts, "Losses", { D: "real", G: "fake" }),
      new Chart(charts, "Raw scores", { real: "real", fake: "fake" }),
      new Chart(charts, "Good points", { share: "good" }),
      new Chart(charts, "Reverse KL", { nats: "average" }),
      new Chart(charts, "|v|", { D: "real", G: "fake" }, true),
    ];
    this.plane = side.appendChild(document.createElement("figure"));
    this.plane.className = "plane";
    this.plane.hidden = true;
    this.planeText = this.plane.appendChild(document.createElement("figcaption"));
    this.planeCanvas = this.plane.appendChild(document.createElement("canvas"));
    this.planeCanvas.setAttribute("role", "img");
    this.planeCanvas.setAttribute("aria-label", "Eigenvalues, not measured yet");
    this.planeCanvas.hidden = true; // until there are some
    this.planeText.textContent = "No eigenvalues yet: they are measured after the first round, which takes seconds.";
    this.connection = new Connection(query, {
      message: (message) => this.take(message),
      frame: (frame) => this.takeFrame(frame),
      state: (state) => this.connected(state),
    });
    this.turn = this.turn.bind(this);
    this.request = requestAnimationFrame(this.turn);
  }

  /** @param {{[name: string]: any}} message */
  send(message) {
    if (message.do === "play") this.played = performance.now();
    return this.connection.send(message);
  }

  /** It doesn't play, though it was told to before its frame was asked for: it failed, or nobody looked. */
  get hasStopped() {
    if (this.state === "refused" || this.state === "taken") return true;
    return this.answered > this.played && !this.frame?.head.playing;
  }

  /** Goes on with other parameters; a game that was refused begins. @param {Query} query */
  change(query) {
    this.query = this.connection.query = query;
    if (this.state === "refused" || this.state === "taken") {
      this.connection.key = "";
      this.connection.open();
    } else this.send({ do: "change", query });
  }

  /** @param {string} state */
  connected(state) {
    this.state = state;
    this.isWaiting = false;
    if (state === "open" || state === "restarted") {
      this.send({ do: "speed", rounds: this.wishes.speed });
      if (this.wishes.spectra) this.send({ do: "spectrum", on: true });
      if (this.wishes.wantsPlay) this.send({ do: "play" });
    }
    this.on(this, "state", state);
  }

  /** @param {{[name: string]: any}} message */
  take(message) {
    if (message.is === "game") {
      this.game = { ...message, signed: this.wishes.isSigned(message.texts.objective) };
      this.before = undefined;
    }
    this.on(this, message.is, message);
  }

  /** @param {Frame} frame */
  takeFrame(frame) {
    this.isWaiting = false;
    const now = performance.now();
    note(this.times.frame, now - this.asked);
    this.answered = this.asked;
    if (frame.head.resets !== this.resets) {
      this.resets = frame.head.resets;
      for (const chart of this.charts) chart.clear();
      this.before = undefined;
    } else this.before = this.frame;
    this.frame = frame;
    this.arrived = now;
    this.isNew = true;
    this.tell(frame.head);
    this.on(this, "frame", frame.head);
  }

  /** @param {any} head */
  tell(head) {
    const [caught, of, good, kl] = head.coverage;
    const { means } = head;
    const v = Math.hypot(means.gradient_D, means.gradient_G);
    const set = (/** @type {string} */ name, /** @type {string} */ text) => {
      if (this.facts[name].textContent !== text) this.facts[name].textContent = text;
    };
    set("round", String(head.round));
    set("rounds a second", head.playing ? head.rate.toFixed(head.rate < 10 ? 1 : 0) : "paused");
    set("modes", `${caught} of ${of}`);
    set("good points", `${(100 * good).toFixed(1)} %`);
    set("reverse KL", told(kl));
    if (Number.isFinite(v)) set("|v|", told(v));
    set("digest at 500", head.digest ? `${head.digest}${head.ofLink ? "" : " (changed)"}` : "–");
    if (this.failure.textContent !== head.failure) this.failure.textContent = head.failure;
    if (head.spectrum) this.tellSpectrum(head.spectrum);
    if (means["loss_D.adversarial"] !== undefined) {
      const [losses, scores, goods, kls, speed] = this.charts;
      losses.add(head.round, [means["loss_D.adversarial"], means["loss_G.adversarial"]]);
      scores.add(head.round, [means["scores.real"], means["scores.fake"]]);
      goods.add(head.round, [good]);
      kls.add(head.round, [kl]);
      speed.add(head.round, [means.gradient_D, means.gradient_G]);
    }
    if (this.num++ % (5 * CHARTS_EVERY) === 0) {
      this.board.canvas.setAttribute(
        "aria-label",
        `Game ${this.name}, round ${head.round}: ${caught} of ${of} modes, ${(100 * good).toFixed(0)} % good points`,
      );
    }
  }

  /** @param {any} found */
  tellSpectrum(found) {
    this.spectrum = found;
    this.planeCanvas.hidden = Boolean(found.refused);
    if (found.refused) {
      this.planeText.textContent = found.refused;
      return;
    }
    const kind = found.isDense ? "all" : "leading";
    const how = found.isExact ? found.rule : `${found.rule || "no region for this rule"}, for small steps only`;
    const limit =
      found.limit == null ? "…" : found.limit === 0 ? "none: it grows along a direction at any step" : found.limit < 0 ? "no bound" : `×${told(found.limit)}`;
    this.planeText.textContent =
      `${kind} eigenvalues of the flow (round ${found.round}) over the stability region: ${how}. ` +
      `Round's radius ${found.radius.toFixed(4)}. Predicted limit of the rates: ${limit}`;
    this.drawSpectrum();
  }

  drawSpectrum() {
    const found = this.spectrum;
    if (!found || found.refused || this.plane.hidden) return;
    const values = found.border.length ? found.flow : found.mu;
    drawPlane(this.planeCanvas, [{ values, tone: "fake" }], found.border, `${values.length} eigenvalues, round ${found.round}, radius ${found.radius.toFixed(4)}`);
  }

  /** @param {boolean} on */
  showSpectra(on) {
    this.plane.hidden = !on;
    this.send({ do: "spectrum", on });
  }

  /** @param {number} now */
  turn(now) {
    this.request = requestAnimationFrame(this.turn);
    const wasAsked = performance.now() - this.asked;
    const isOpen = this.state === "open" || this.state === "restarted";
    if (isOpen && !this.isWaiting && wasAsked >= FRAME_MS && this.send({ do: "frame" })) {
      this.isWaiting = true;
      this.asked = performance.now();
    }
    if (!this.game || !this.frame) return;
    const start = performance.now();
    const share = calm.matches ? 1 : Math.min(1, (now - this.arrived) / FRAME_MS);
    if (share < 1 || this.isNew) {
      this.board.draw(this.game, this.frame, this.before, share, this.wishes.layers);
      if (this.isNew && this.num % CHARTS_EVERY === 0) for (const chart of this.charts) chart.draw();
      this.isNew = share < 1;
      note(this.times.draw, performance.now() - start);
    }
  }

  /** Draws everything again: the theme, a layer or the width has changed. */
  redraw() {
    this.isNew = true;
    this.board.painted = -1;
    for (const chart of this.charts) chart.draw();
    this.drawSpectrum();
  }

  close() {
    cancelAnimationFrame(this.request);
    this.connection.close();
    this.root.remove();
  }
}

/** @param {number[]} list @param {number} value */
function note(list, value) {
  list.push(value);
  if (list.length > KEPT_TIMES) list.shift();
}
