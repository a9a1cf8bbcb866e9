// Looks at the server all the time: whether it answers, what it serves, what it measures of itself.

import { at, element } from "./elements.js";

const EVERY_MS = 2000;
const LOST_MS = 500;
const IMAGES = /generate|images|interpolate|predict|infer/; // routes that make images

/** @typedef {{requests: number, buckets: Map<number, number>, waiting: number, devices: string[], at: number}} Sample */

/** Reads what the page shows of /metrics. @param {string} text @returns {Sample} */
export function sampleOf(text) {
  /** @type {Sample} */
  const sample = { requests: 0, buckets: new Map(), waiting: 0, devices: [], at: performance.now() };
  for (const [, name, labels = "", number] of text.matchAll(/^saddlepoint_(\w+)(?:\{(.*)\})? (\S+)$/gm)) {
    const value = Number(number);
    const label = (/** @type {string} */ key) => new RegExp(`(?:^|,)${key}="([^"]*)"`).exec(labels)?.[1] ?? "";
    if (name === "rows_waiting") sample.waiting = value;
    if (name === "workers_ready" && value) sample.devices.push(label("device"));
    if (!IMAGES.test(label("route"))) continue;
    if (name === "http_requests_total") sample.requests += value;
    if (name === "http_request_duration_seconds_bucket") {
      const bound = label("le") === "+Inf" ? Infinity : Number(label("le"));
      sample.buckets.set(bound, (sample.buckets.get(bound) ?? 0) + value);
    }
  }
  return sample;
}

/** A quantile in seconds of what came between two samples, as histogram_quantile has it; null of none.
 * @param {Sample} now @param {Sample} before @param {number} q */
export function quantile(now, before, q) {
  const counts = [...now.buckets].sort(([a], [b]) => a - b).map(([bound, count]) =>
    /** @type {[number, number]} */ ([bound, count - (before.buckets.get(bound) ?? 0)]));
  const total = counts.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const rank = q * total;
  let [low, below] = [0, 0];
  for (const [bound, count] of counts) {
    if (count >= rank) {
      if (bound === Infinity) return low;
      return low + ((bound - low) * (rank - below)) / Math.max(count - below, 1e-9);
    }
    [low, below] = [bound, count];
  }
  return low;
}

/** @param {number | null} seconds */
const inMs = (seconds) => (seconds === null ? "\u2013" : `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`);

export class Pulse {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.hasMetrics = false;
    /** @type {Sample[]} */
    this.samples = [];
    this.timer = 0;
    this.turn = 0;
    document.addEventListener("visibilitychange", () => !document.hidden && this.beat());
  }

  /** One look now, and then one after the other. */
  async beat() {
    const turn = (this.turn += 1);
    clearTimeout(this.timer);
    if (!document.hidden && !document.body.classList.contains("locked")) await this.#look();
    if (turn !== this.turn) return; // another one goes on
    this.timer = window.setTimeout(() => this.beat(), this.app.lost ? LOST_MS : EVERY_MS);
  }

  async #look() {
    try {
      const { models } = await this.app.api.json("v1/models");
      if (models.length) this.app.answered(models);
    } catch (/** @type {any} */ error) {
      if (error.status === 0 || error.status >= 502) this.app.miss();
      return;
    }
    if (!this.hasMetrics) return;
    try {
      await this.#measure();
    } catch (/** @type {any} */ error) {
      if (error.status === 403) this.hasMetrics = false; // the key makes images alone
    }
  }

  async #measure() {
    this.samples.push(sampleOf(await (await this.app.api.ask("metrics")).text()));
    this.samples = this.samples.slice(-6);
    const [before, now] = [this.samples[0], this.samples[this.samples.length - 1]];
    const seconds = (now.at - before.at) / 1000;
    const { model } = this.app;
    const rate = seconds > 0 ? Math.max(0, now.requests - before.requests) / seconds : 0;
    this.#show({
      "requests/s": rate.toFixed(rate < 10 ? 1 : 0),
      p50: inMs(quantile(now, before, 0.5)),
      p99: inMs(quantile(now, before, 0.99)),
      waiting: String(now.waiting),
      device: now.devices.join(", ") || "\u2013",
      digest: model ? model.digest.slice(0, 12) : "\u2013",
    });
  }

  /** Only what has changed: the strip is looked at, not announced. @param {Record<string, string>} values */
  #show(values) {
    for (const [name, value] of Object.entries(values)) {
      const id = `truth-${name.replace(/\W/g, "-")}`;
      if (!at(id)) {
        at("truth").append(element("div", {}, element("dt", { textContent: name }), element("dd", { id })));
      }
      if (at(id).textContent !== value) at(id).textContent = value;
    }
  }

  /** Whether the page may see the metrics: they may be on another port. */
  async findMetrics() {
    const { paths } = await this.app.api.json("openapi.json");
    const metrics = paths["/metrics"]?.get;
    this.hasMetrics = Boolean(metrics) && (!("security" in metrics) || this.app.api.key !== "");
    at("metrics").hidden = !metrics || "security" in metrics; // a link can't carry a key
  }
}
