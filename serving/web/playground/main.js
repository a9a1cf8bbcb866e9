// The playground: connects the controls at the top to the state, and starts.

import { App } from "./app.js";
import { at } from "./elements.js";
import { saveWall } from "./downloads.js";
import { MAX_SEED, fromText, noStyles, seedOf } from "./state.js";

const STEP = 64n;
const app = new App();
const change = (/** @type {any} */ fields, settled = true) => app.store.change(fields, settled);

/** @param {bigint} seed */
const jump = (seed) =>
  change({ first: seed < 0n ? 0n : seed > MAX_SEED ? MAX_SEED : seed, shuffle: null, only: false });

at("controls").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
at("model").addEventListener("change", () =>
  change({ model: at("model").value, version: null, label: null, directions: new Map(), styles: noStyles(), off: [] }),
);
at("version").addEventListener("change", () =>
  change({ version: at("version").value ? Number(at("version").value) : null }),
);
at("label").addEventListener("change", () => change({ label: Number(at("label").value) }));
at("psi").addEventListener("input", () => change({ psi: Number(at("psi").value) }, false));
at("psi").addEventListener("change", () => change({ psi: Number(at("psi").value) }));
at("seed").addEventListener("change", () => {
  const seed = seedOf(at("seed").value.trim());
  if (seed === null) app.say({ message: `A seed is a whole number in 0 .. ${MAX_SEED}.` });
  else jump(seed);
});
at("before").addEventListener("click", () => jump(app.state.first - STEP));
at("next").addEventListener("click", () => jump(app.state.first + STEP));
at("random").addEventListener("click", () => jump(crypto.getRandomValues(new BigUint64Array(1))[0] >> 16n));
at("shuffle").addEventListener("click", () =>
  change({ shuffle: app.state.shuffle === null ? crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000 : null, only: false }),
);
at("sort").addEventListener("change", () => change({ sort: at("sort").value }));
at("tiles").addEventListener("change", () => change({ tiles: at("tiles").value }));
at("only").addEventListener("change", () => change({ only: at("only").checked }));
at("download-grid").addEventListener("click", () => saveWall(app, "grid.png", { layout: "grid", format: "png" }));
at("download-npy").addEventListener("click", () => saveWall(app, "images.npy", { format: "npy" }));
at("key").addEventListener("change", () => {
  app.api.key = at("key").value.trim();
  at("copy-curl").title = app.api.key ? "It takes your API key from the shell's variable KEY" : "";
  app.start();
  app.pulse.findMetrics().catch(() => {});
});
addEventListener("hashchange", () => {
  const state = fromText(location.hash.slice(1));
  if (app.models.some(({ name }) => name === state.model)) app.store.replace(state);
});
app.start();
app.pulse.findMetrics().catch(() => {}); // start() reports the error
