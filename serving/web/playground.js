// The playground. Its state is in the URL's fragment, and every image has a URL of its own. All
// addresses are relative: a proxy may show the page under any path.

import { Directions } from "./directions.js";

const MODELS = "v1/models";
const GENERATE = "v1/generate";

// For the lines that are copied into a shell.
const KEY = '-H "Authorization: Bearer $KEY"';
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const PAGE = 48;
const MAX_SEED = 2n ** 64n - 1n;
const at = (id) => document.getElementById(id);
const state = { models: [], seed: 0n, psi: 1, chosen: new Set(), key: "", drawn: 0, shown: 0 };
const directions = new Directions(at("directions"), () => details(), () => draw());

const model = () => state.models.find((entry) => entry.name === at("model").value);
const imageClass = ({ image }) =>
  [image.width < 96 && "small", image.channels === 4 && "alpha"].filter(Boolean).join(" ");
const label = () => (model()?.labels ? Number(at("label").value) : null);
const headers = () => (state.key ? { Authorization: `Bearer ${state.key}` } : {});

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch {
    throw new Refused(0, "The server does not answer.");
  }
  if (reply.ok) return reply;
  let detail = `Status ${reply.status}.`;
  try {
    detail = (await reply.json()).detail;
  } catch {
    // not a problem document, but a proxy's page
  }
  throw new Refused(reply.status, detail);
}

const post = (path, body) =>
  ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
  });

const isAsking = (error) => error?.status === 401 && !state.key;

function tell(error) {
  at("message").hidden = !error;
  at("message").textContent = isAsking(error) ? "Enter an API key." : (error?.message ?? "");
  at("message").className = isAsking(error) ? "request" : "";
  if (error?.status !== 401) return;
  document.body.classList.add("locked");
  at("key-field").hidden = false;
  at("key").focus();
}

async function guarded(work) {
  try {
    tell(null);
    await work();
  } catch (error) {
    tell(error);
  }
}

// Seeds have 64 bits: JavaScript would round them if it read them as numbers.
function body(seeds, more) {
  const fields = { model: model().name, version: model().version, truncation: state.psi, ...directions.body(), ...more };
  return `{"seeds":[${seeds.join(",")}],${JSON.stringify(fields).slice(1)}`;
}

const labelled = (name) => (label() === null ? {} : { [name]: label() });

function url(seed) {
  const entry = model();
  const query = new URLSearchParams({ version: entry.version });
  if (label() !== null) query.set("label", label());
  if (state.psi !== 1) query.set("truncation", state.psi);
  for (const [name, amount] of directions.pairs()) query.set(name, amount);
  return `v1/models/${encodeURIComponent(entry.name)}/images/${seed}.png?${query}`;
}

async function show(image, seed) {
  const path = url(seed);
  if (!state.key) {
    image.src = path; // the URL names the version, so the browser may cache it
    return;
  }
  const turn = (image.dataset.turn = ++state.shown);
  const data = await (await ask(path)).blob();
  if (image.dataset.turn !== String(turn)) return; // another one was asked for meanwhile
  image.src = URL.createObjectURL(data);
  image.onload = () => URL.revokeObjectURL(image.src);
}

const seedsShown = () =>
  Array.from({ length: PAGE }, (_, index) => state.seed + BigInt(index)).filter(
    (seed) => seed <= MAX_SEED,
  );

function draw() {
  if (!model()) return;
  const look = imageClass(model());
  const began = performance.now();
  const turn = ++state.drawn;
  let left = 0;
  tell(null);
  const tiles = seedsShown().map((seed) => {
    const tile = document.createElement("button");
    tile.type = "button";
    tile.setAttribute("aria-pressed", state.chosen.has(seed));
    tile.title = `Seed ${seed}`;
    const image = new Image();
    image.alt = `Seed ${seed}`;
    image.className = look;
    left += 1;
    image.addEventListener("load", () => {
      left -= 1;
      if (turn === state.drawn && left === 0) timed(performance.now() - began);
    });
    image.addEventListener("error", () => guarded(() => ask(url(seed))));
    show(image, seed).catch(tell);
    tile.append(image);
    tile.addEventListener("click", () => choose(seed));
    return tile;
  });
  at("images").replaceChildren(...tiles);
  const { name, version, digest } = model();
  at("provenance").textContent = `${name}, version ${version}, digest ${digest.slice(0, 16)}`;
  details();
  remember();
}

function timed(ms) {
  at("provenance").textContent += `, ${seedsShown().length} images in ${Math.round(ms)} ms`;
}

function choose(seed) {
  if (!state.chosen.delete(seed)) state.chosen.add(seed);
  seedsShown().forEach((shown, index) => {
    at("images").children[index].setAttribute("aria-pressed", state.chosen.has(shown));
  });
  details();
}

function details() {
  const seeds = [...state.chosen];
  at("hint").hidden = seeds.length > 0;
  at("chosen").hidden = seeds.length === 0;
  at("walking").hidden = seeds.length < 2;
  at("num-chosen").textContent = seeds.length;
  if (seeds.length === 0) return;
  const last = seeds.at(-1);
  const image = at("large");
  image.className = imageClass(model());
  image.alt = `Seed ${last}`;
  show(image, last).catch(tell);
  const names = model().labels;
  at("caption").textContent =
    `Seed ${last}` +
    (names ? `, class ${names[label()]}` : "") +
    (state.psi === 1 ? "" : `, truncation ${state.psi.toFixed(2)}`) +
    directions.words().map((words) => `, ${words}`).join("");
}

async function walk() {
  const seeds = [...state.chosen];
  const frames = Math.min(model().limits.max_frames, Math.max(24 * seeds.length, 48));
  const more = { ...labelled("label"), frames, loop: at("loop").checked, format: "webp" };
  const reply = await post("v1/interpolate", body(seeds, more));
  const image = at("large");
  image.src = URL.createObjectURL(await reply.blob());
  image.alt = `A walk from seed ${seeds.join(" to ")}`;
  at("caption").textContent = `${image.alt}, ${frames} frames`;
}

async function download(name, more) {
  const reply = await post(GENERATE, body(seedsShown(), { ...labelled("labels"), ...more }));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await reply.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const lastChosen = () => new URL(url([...state.chosen].at(-1)), location.href).href;

// The copied line names a variable, so that the key stays out of the shell's history.
function curl() {
  const key = state.key ? ` ${KEY}` : "";
  return `curl -s ${quoted(lastChosen())}${key} -o image.png`;
}

// The seed as a string of digits where Python's reader of JSON would keep it and others would not.
function python() {
  const [seed] = [...state.chosen].slice(-1);
  const { name, version } = model();
  const fields = {
    model: name,
    version,
    seeds: [String(seed)],
    ...labelled("labels"),
    truncation: state.psi,
    ...directions.body(),
    format: "png",
  };
  const key = state.key ? ', headers={"Authorization": f"Bearer {os.environ[\'KEY\']}"}' : "";
  return [
    state.key ? "import os\n\nimport httpx\n" : "import httpx\n",
    `body = ${JSON.stringify(fields)}`,
    `reply = httpx.post(${JSON.stringify(new URL(GENERATE, location.href).href)}, json=body${key})`,
    "reply.raise_for_status()",
    'open("image.png", "wb").write(reply.content)\n',
  ].join("\n");
}

function remember() {
  const fields = new URLSearchParams({ model: model().name, seed: state.seed });
  if (label() !== null) fields.set("label", label());
  if (state.psi !== 1) fields.set("psi", state.psi);
  for (const [name, amount] of directions.pairs()) fields.set(name, amount);
  history.replaceState(null, "", `#${fields}`);
}

function recall() {
  const fields = new URLSearchParams(location.hash.slice(1));
  if (state.models.some((entry) => entry.name === fields.get("model"))) {
    at("model").value = fields.get("model");
  }
  classes();
  if (model()?.labels?.[fields.get("label")]) at("label").value = fields.get("label");
  directions.recall(fields);
  const psi = Number(fields.get("psi") ?? 1);
  setPsi(psi >= 0 && psi <= 2 ? psi : 1);
  setSeed(/^\d{1,20}$/.test(fields.get("seed") ?? "") ? BigInt(fields.get("seed")) : 0n);
}

function setSeed(seed) {
  state.seed = seed < 0n ? 0n : seed > MAX_SEED ? MAX_SEED : seed;
  at("seed").value = state.seed;
}

function setPsi(psi) {
  state.psi = psi;
  at("psi").value = psi;
  at("psi-shown").textContent = psi.toFixed(2);
}

function classes() {
  const names = model()?.labels;
  at("label-field").hidden = !names;
  at("label").replaceChildren(...(names ?? []).map((name, index) => new Option(name, index)));
}

// The directions of the model that is chosen; others are there by the time that a slow answer comes.
async function moves() {
  const { name, version, parts } = model();
  if (!parts?.includes("directions")) {
    directions.show([], null);
    return;
  }
  const path = `${MODELS}/${encodeURIComponent(name)}/directions?version=${version}`;
  const known = (await (await ask(path)).json()).directions;
  if (model()?.name !== name) return;
  state.known = known;
  directions.show(known, label());
}

async function change() {
  await guarded(moves);
  draw();
}

async function start() {
  try {
    state.models = (await (await ask("v1/models")).json()).models;
    if (state.models.length === 0) throw new Refused(503, "No model is served yet.");
  } catch (error) {
    tell(error);
    if (error.status !== 401) setTimeout(start, 1500);
    return;
  }
  tell(null);
  document.body.classList.remove("locked");
  at("model").replaceChildren(...state.models.map(({ name }) => new Option(name)));
  recall();
  await change();
}

// A link can't carry a key, and the metrics may be on another port.
async function linkMetrics() {
  const { paths } = await (await ask("openapi.json")).json();
  const metrics = paths["/metrics"]?.get;
  at("metrics").hidden = !metrics || "security" in metrics;
}

function move(seed) {
  setSeed(seed);
  draw();
}

at("controls").addEventListener("submit", (event) => event.preventDefault());
at("model").addEventListener("change", () => {
  state.chosen.clear();
  directions.amounts.clear();
  classes();
  change();
});
at("label").addEventListener("change", () => {
  if (!at("directions").hidden) directions.show(state.known, label());
  draw();
});
at("psi").addEventListener("input", () => setPsi(Number(at("psi").value)));
at("psi").addEventListener("change", draw);
at("seed").addEventListener("change", () => {
  if (!/^\d{1,20}$/.test(at("seed").value) || BigInt(at("seed").value) > MAX_SEED) {
    tell(new Refused(0, `A seed is a whole number in 0 .. ${MAX_SEED}.`));
  } else {
    move(BigInt(at("seed").value));
  }
});
at("before").addEventListener("click", () => move(state.seed - BigInt(PAGE)));
at("next").addEventListener("click", () => move(state.seed + BigInt(PAGE)));
at("random").addEventListener("click", () =>
  move(crypto.getRandomValues(new BigUint64Array(1))[0] >> 16n),
);
at("clear").addEventListener("click", () => {
  state.chosen.clear();
  draw();
});
at("walk").addEventListener("click", () => guarded(walk));
at("copy-url").addEventListener("click", () =>
  guarded(() => navigator.clipboard.writeText(lastChosen())),
);
at("copy-curl").addEventListener("click", () =>
  guarded(() => navigator.clipboard.writeText(curl())),
);
at("copy-python").addEventListener("click", () =>
  guarded(() => navigator.clipboard.writeText(python())),
);
at("download-grid").addEventListener("click", () =>
  guarded(() => download("grid.png", { layout: "grid", format: "png" })),
);
at("download-npy").addEventListener("click", () =>
  guarded(() => download("images.npy", { format: "npy" })),
);
at("key").addEventListener("change", () => {
  state.key = at("key").value.trim();
  at("copy-curl").title = state.key ? "It takes your API key from the shell's variable KEY" : "";
  start();
});
addEventListener("hashchange", () => {
  recall();
  change();
});
start();
linkMetrics().catch(() => {}); // start() reports the error
