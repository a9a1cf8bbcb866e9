// A path through key seeds: its frames are fetched before they are shown, so that it can be scrubbed.

import { button, element, save } from "../elements.js";
import { INTERPOLATE, bodyOf, fieldsOf, labelled } from "../requests.js";
import { LOOK, seedOf } from "../state.js";

const FRAMES = 24; // of a segment
const FPS = 24;
const MOST_WIDTH = 8192; // pixels of a segment's strip
const MOST_KEPT = 64; // segments

/** @type {import("./registry.js").Panel} */
export const path = {
  id: "path",
  title: "Path through seeds",
  isFor: () => true,
  build(app, body) {
    /** @type {Map<string, Promise<ImageBitmap>>} */
    const kept = new Map();
    /** @type {(ImageBitmap | null)[]} */
    let strips = [];
    let position = 0;
    let playing = 0;
    let turn = 0;
    const chips = element("ol", { class: "chips", "aria-label": "Key seeds" });
    const canvas = element("canvas", { role: "img", "aria-label": "The path's image", id: "path-frame" });
    const scrub = element("input", {
      type: "range", id: "scrub", min: 0, max: 0, step: 1, value: "0", "aria-label": "Place on the path",
      oninput: () => show(Number(scrub.value)),
    });
    const play = button("Play", () => (playing ? stop() : start()), { id: "play" });
    const loop = element("input", { type: "checkbox", id: "loop", onchange: () => app.store.change({ loop: loop.checked }) });
    const format = element("select", { id: "walk-format", "aria-label": "Format of the file" },
      ...["webp", "gif", "strip"].map((name) => new Option(name)));
    const seed = element("input", { type: "text", inputMode: "numeric", id: "key-seed", maxLength: 20 });
    const add = () => {
      const found = seedOf(seed.value.trim());
      if (found === null) app.say({ message: "A key seed is a whole number in 0 .. 2^64 - 1." });
      else app.store.change({ path: [...app.state.path, found] });
    };
    const player = element("div", { class: "player" }, canvas, scrub,
      element("div", { class: "buttons" }, play, element("label", { class: "check" }, loop, "and back to the first"),
        format, button("Download", () => download(), { id: "walk" })));
    body.append(
      element("p", { textContent: "Two or more seeds; between them images on the great arc." }), chips,
      element("div", { class: "buttons" }, element("label", {}, "Key seed", seed), button("Add", add, { id: "add-key" }),
        button("Use the favourites", () => app.store.change({ path: [...app.state.stars] })),
        button("Clear", () => app.store.change({ path: [] }))),
      player);

    /** Frames of a segment: fewer of large images. */
    const framesOf = () => {
      const { image, limits } = app.model;
      const most = Math.min(limits.max_frames, Math.floor(limits.max_image_pixels / (image.width * image.height)));
      return Math.max(2, Math.min(FRAMES + 1, most, Math.floor(MOST_WIDTH / image.width)));
    };

    const segments = () => {
      const { path: keys, loop: back } = app.state;
      if (keys.length < 2) return [];
      const pairs = keys.slice(1).map((key, i) => [keys[i], key]);
      return back ? [...pairs, [keys[keys.length - 1], keys[0]]] : pairs;
    };

    /** The frames of a segment side by side, of the cache or the server. @param {bigint[]} pair */
    function strip(pair) {
      const { state, model } = app;
      const fields = { ...fieldsOf(state, model), ...labelled("label", state, model), frames: framesOf(), format: "strip" };
      const request = bodyOf(pair, fields);
      let found = kept.get(request);
      if (!found) {
        found = app.api.post(INTERPOLATE, request).then((reply) => reply.blob()).then((blob) => createImageBitmap(blob));
        kept.set(request, found);
        found.catch(() => kept.delete(request));
        for (const old of kept.keys()) {
          if (kept.size <= MOST_KEPT) break;
          kept.delete(old);
        }
      }
      return found;
    }

    /** Fetches the segment that is looked at first, then the ones beside it. */
    async function prefetch() {
      const mine = (turn += 1);
      const pairs = segments();
      strips = pairs.map(() => null);
      player.hidden = pairs.length === 0;
      if (!pairs.length) {
        stop();
        return;
      }
      const steps = framesOf() - 1;
      scrub.max = String(pairs.length * steps);
      position = Math.min(position, pairs.length * steps);
      const middle = Math.min(pairs.length - 1, Math.floor(position / steps));
      player.setAttribute("aria-busy", "true");
      const order = pairs.map((_, i) => i).sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
      try {
        for (const i of order) {
          const bitmap = await strip(pairs[i]);
          if (mine !== turn) return; // another path is wanted by now
          strips[i] = bitmap;
          if (i === middle) show(position);
        }
        player.setAttribute("aria-busy", "false");
      } catch (error) {
        if (mine === turn) app.fail(error);
      }
    }

    /** Draws a frame that is there already: no request is waited for. @param {number} frame */
    function show(frame) {
      position = frame;
      scrub.value = String(frame);
      const steps = framesOf() - 1;
      const segment = Math.min(strips.length - 1, Math.floor(frame / steps));
      const bitmap = strips[segment];
      if (!bitmap) return;
      const { width, height } = app.model.image;
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, width, height);
      context.drawImage(bitmap, (frame - segment * steps) * width, 0, width, height, 0, 0, width, height);
    }

    function start() {
      if (!strips.length) return;
      play.textContent = "Stop";
      let before = performance.now();
      const step = (/** @type {number} */ now) => {
        const frames = Math.floor(((now - before) / 1000) * FPS);
        if (frames > 0) {
          before += (frames / FPS) * 1000;
          const end = Number(scrub.max);
          const next = position + frames;
          if (next > end && !app.state.loop) {
            show(end);
            stop();
            return;
          }
          show(next > end ? next % Math.max(1, end) : next);
        }
        playing = requestAnimationFrame(step);
      };
      if (position >= Number(scrub.max)) show(0);
      playing = requestAnimationFrame(step);
    }

    function stop() {
      cancelAnimationFrame(playing);
      playing = 0;
      play.textContent = "Play";
    }

    function download() {
      app.guarded(async () => {
        const { state, model } = app;
        const frames = Math.max(state.path.length, Math.min(model.limits.max_frames, segments().length * (framesOf() - 1)));
        const more = { ...labelled("label", state, model), frames, loop: state.loop, format: format.value };
        const reply = await app.api.post(INTERPOLATE, bodyOf(state.path, { ...fieldsOf(state, model), ...more }));
        save(await reply.blob(), `walk.${format.value === "strip" ? "png" : format.value}`);
      });
    }

    function draw() {
      const keys = app.state.path;
      chips.replaceChildren(...keys.map((key, i) =>
        element("li", {}, `${key} `, button("\u00d7", () => app.store.change({ path: keys.filter((_, at) => at !== i) }),
          { "aria-label": `Take seed ${key} off the path` }))));
    }

    return (changed, settled) => {
      loop.checked = app.state.loop;
      if (["model", "path"].some((name) => changed.has(name))) draw();
      canvas.className = app.model.image.width < 96 ? "small" : "";
      const box = /** @type {HTMLDetailsElement} */ (body.parentElement);
      if (changed.has("path") && app.state.path.length && settled) box.open = true;
      const matters = [...LOOK, "path", "loop", "opened"].some((name) => changed.has(name));
      if (settled && matters && box.open) prefetch();
      if (!box.open) stop();
    };
  },
};
