// The panel for a real image: what the model makes of it, edits by sliders, a painted part filled in
// several ways, and how unusual it is. It needs nothing of the playground but its model and its key.

const MOST = 3; // units of a direction, either way
const SLIDERS = 6;
const at = (id) => document.getElementById(id);
const url = (name) => `v1/models/${encodeURIComponent(name)}`;
const decibels = (error) => (error > 0 ? `${(-10 * Math.log10(error)).toFixed(1)} dB` : "exact");
const png = (data) => `data:image/png;base64,${data}`;

const PANEL = `
<summary>A real image</summary>
<p class="quiet" id="real-none" hidden>This model has no encoder: it takes no images.</p>
<div id="real-body" hidden>
  <div class="real-row">
    <label class="real-drop" id="real-drop">Drop an image here, or choose one
      <input type="file" id="real-file" accept="image/png,image/jpeg,image/webp"></label>
    <label id="real-class-field" hidden>Its class <select id="real-class"></select></label>
  </div>
  <p role="alert" id="real-message" hidden></p>
  <div id="real-work" hidden>
    <div class="real-row">
      <figure><div class="real-canvas"><canvas id="real-image"></canvas>
        <canvas id="real-mask" aria-label="Paint what is to be filled"></canvas></div>
        <figcaption id="real-image-told">Your image; paint on it what is to be filled</figcaption></figure>
      <figure><img id="real-made" alt="What the model makes of it"><figcaption id="real-made-told"></figcaption></figure>
      <figure><img id="real-map" alt="Where they differ"><figcaption id="real-map-told"></figcaption></figure>
    </div>
    <fieldset id="real-edit" hidden><legend>Edit</legend>
      <div class="real-row"><div class="rows" id="real-sliders"></div>
      <figure><img id="real-edited" alt="The edited image"><figcaption>Edited: what isn't moved stays</figcaption></figure></div>
    </fieldset>
    <fieldset id="real-fill" hidden><legend>Fill</legend>
      <div class="buttons"><label>Brush <input type="range" id="real-brush" min="1" max="8" value="2"></label>
        <label id="real-answers-field">Answers <input type="number" id="real-answers" min="1" max="16" value="4"></label>
        <button type="button" id="real-clear">Clear paint</button>
        <button type="button" id="real-go">Fill</button></div>
      <div class="real-row" id="real-filled" aria-live="polite"></div>
      <p class="quiet" id="real-note"></p>
    </fieldset>
  </div>
</div>`;

const state = { model: null, shown: "", turns: {}, directions: [], amounts: new Map() };

// Whether an answer is still wanted: none of its kind has been asked for since, and the image is the same.
function asked(kind) {
  const turn = (state.turns[kind] = (state.turns[kind] ?? 0) + 1);
  return () => state.turns[kind] === turn;
}

// Another image or model: what is under way about the last one is of no use any more.
const leave = () => ["open", "look", "edit", "fill"].forEach(asked);

async function ask(path, options = {}) {
  const key = at("key")?.value.trim();
  const reply = await fetch(path, { ...options, headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (reply.ok) return reply;
  let detail = `Status ${reply.status}.`;
  try {
    detail = (await reply.json()).detail;
  } catch {
    // not a problem document, but a proxy's page
  }
  throw new Error(detail);
}

function post(path, fields) {
  const form = new FormData();
  const { name, version } = state.model;
  for (const [field, value] of Object.entries({ model: name, version, ...fields })) form.append(field, value);
  return ask(path, { method: "POST", body: form });
}

async function guarded(work) {
  at("real-message").hidden = true;
  try {
    await work();
  } catch (error) {
    at("real-message").textContent = error.message;
    at("real-message").hidden = false;
  }
}

const labelled = (name) => (at("real-class-field").hidden ? {} : { [name]: at("real-class").value });
const blobOf = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

// The model and version that the page shows; the panel begins anew where they are others.
async function follow() {
  if (!at("real").open) return;
  const shown = at("provenance").textContent;
  if (!shown || state.shown === shown) return;
  state.shown = shown;
  const isWanted = asked("follow");
  leave();
  at("real-body").hidden = true;
  const name = at("model").value;
  const [, version] = /version (\d+), digest \w+$/.exec(shown);
  let [model, known] = [null, []];
  try {
    model = await (await ask(`${url(name)}?version=${version}`)).json();
    if (model.encoder && model.parts.includes("directions")) {
      known = (await (await ask(`${url(name)}/directions?version=${version}`)).json()).directions;
    }
  } catch (error) {
    if (!isWanted()) return;
    state.shown = ""; // asked for again when the panel is opened
    throw error;
  }
  if (!isWanted()) return;
  state.model = model;
  const { encoder, labels } = model;
  at("real-none").hidden = Boolean(encoder);
  at("real-body").hidden = !encoder;
  at("real-work").hidden = true;
  if (!encoder) return;
  at("real-class-field").hidden = encoder.label !== "needed";
  at("real-class").replaceChildren(...(labels ?? []).map((text, index) => new Option(text, index)));
  at("real-fill").hidden = !encoder.fills;
  at("real-answers-field").hidden = !encoder.varies;
  state.directions = known.filter(({ label }) => label === null).slice(0, SLIDERS);
  at("real-edit").hidden = state.directions.length === 0;
  at("real-sliders").replaceChildren(...state.directions.map(slider));
}

function slider({ key, name }) {
  const row = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: -MOST, max: MOST, step: 0.1, value: 0 });
  input.dataset.key = key;
  input.addEventListener("change", () => {
    state.amounts.set(key, Number(input.value));
    guarded(edit);
  });
  row.append(name ?? `direction ${key}`, input);
  return row;
}

// Draws the middle of a file in the model's size; what is transparent there is painted already.
async function open(file) {
  leave();
  const isWanted = asked("open");
  const { width, height, channels } = state.model.image;
  const bitmap = await createImageBitmap(file);
  if (!isWanted()) return;
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  for (const id of ["real-image", "real-mask"]) Object.assign(at(id), { width, height });
  const context = at("real-image").getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  const pixels = context.getImageData(0, 0, width, height);
  const paint = at("real-mask").getContext("2d");
  if (channels !== 4) {
    for (let index = 0; index < pixels.data.length; index += 4) {
      if (pixels.data[index + 3] < 128) paint.fillRect((index / 4) % width, Math.floor(index / 4 / width), 1, 1);
      pixels.data[index + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  }
  state.amounts.clear();
  for (const input of at("real-sliders").querySelectorAll("input")) input.value = 0;
  at("real-filled").replaceChildren();
  at("real-note").textContent = "";
  at("real-work").hidden = false;
  await look();
}

// What the model makes of the image, and how unusual that is.
async function look() {
  const isWanted = asked("look");
  const images = await blobOf(at("real-image"));
  const found = await (await post("v1/score", { images, maps: true, ...labelled("labels") })).json();
  if (!isWanted()) return; // another image was dropped meanwhile
  const [{ score, p, label, map, reconstruction }] = found.images;
  const shown = at("real-made");
  shown.src = png(reconstruction);
  await shown.decode();
  if (!isWanted()) return;
  const named = label === null || !state.model.labels ? "" : `, class ${state.model.labels[label]}`;
  at("real-made-told").textContent = `The model's: ${decibels(difference(shown))}${named}`;
  at("real-map").src = png(map);
  const none = found.num_calibration ? "no p for a class that is chosen" : "no calibration, so no p";
  const told = p === null ? none : `p ${p.toFixed(3)} of ${found.num_calibration} usual images`;
  at("real-map-told").textContent = `Where it differs: score ${score.toPrecision(3)}, ${told}`;
  await edit();
}

// Mean squared difference of the image from the model's, in parts of the range squared.
function difference(image) {
  const { width, height } = at("real-image");
  const other = new OffscreenCanvas(width, height).getContext("2d");
  other.drawImage(image, 0, 0);
  const [mine, made] = [at("real-image").getContext("2d"), other].map((c) => c.getImageData(0, 0, width, height).data);
  let sum = 0;
  for (let index = 0; index < mine.length; index += 1) {
    if (index % 4 !== 3) sum += ((mine[index] - made[index]) / 255) ** 2;
  }
  return sum / (width * height * 3);
}

async function edit() {
  const isWanted = asked("edit");
  const directions = Object.fromEntries([...state.amounts].filter(([, amount]) => amount));
  if (Object.keys(directions).length === 0) {
    at("real-edited").src = at("real-image").toDataURL();
    return;
  }
  const image = await blobOf(at("real-image"));
  const fields = { image, directions: JSON.stringify(directions), format: "png", ...labelled("label") };
  const reply = await post("v1/edit", fields);
  const blob = await reply.blob();
  if (isWanted()) shownOnce(at("real-edited"), blob);
}

// The painted part as a file: white is to be filled.
async function mask() {
  const { width, height } = at("real-mask");
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "lighter";
  const paint = at("real-mask").getContext("2d").getImageData(0, 0, width, height);
  const white = new ImageData(width, height);
  for (let index = 0; index < paint.data.length; index += 4) {
    white.data.set(paint.data[index + 3] ? [255, 255, 255, 255] : [0, 0, 0, 255], index);
  }
  context.putImageData(white, 0, 0);
  return blobOf(canvas);
}

// Shows a file; its address is given back once it has been read.
function shownOnce(image, blob) {
  const source = URL.createObjectURL(blob);
  image.onload = image.onerror = () => URL.revokeObjectURL(source);
  image.src = source;
}

async function fill() {
  const isWanted = asked("fill");
  const image = await blobOf(at("real-image"));
  const fields = { image, mask: await mask(), format: "png", ...labelled("label") };
  const many = state.model.encoder.varies ? Number(at("real-answers").value) : 1;
  if (many > 1) fields.seeds = JSON.stringify(Array.from({ length: many }, (_, index) => index + 1));
  const reply = await post("v1/inpaint", fields);
  if (many === 1) {
    const blob = await reply.blob();
    if (!isWanted()) return;
    at("real-filled").replaceChildren(figure(blob, "The best answer"));
    at("real-note").textContent = "";
    return;
  }
  const found = await reply.json();
  if (!isWanted()) return;
  at("real-filled").replaceChildren(
    ...found.images.map(({ data, seed }) => figure(png(data), `Seed ${seed}`)),
    figure(png(found.spread_map), `How far they differ: ${found.spread.toFixed(1)}/255`),
  );
  at("real-note").textContent = found.note;
}

function figure(source, words) {
  const made = document.createElement("figure");
  const image = new Image();
  if (source instanceof Blob) shownOnce(image, source);
  else image.src = source;
  image.alt = words;
  const caption = document.createElement("figcaption");
  caption.textContent = words;
  made.append(image, caption);
  return made;
}

function paint(event) {
  if (!(event.buttons & 1)) return;
  const canvas = at("real-mask");
  const box = canvas.getBoundingClientRect();
  const size = Number(at("real-brush").value);
  const x = Math.floor(((event.clientX - box.left) / box.width) * canvas.width - (size - 1) / 2);
  const y = Math.floor(((event.clientY - box.top) / box.height) * canvas.height - (size - 1) / 2);
  const context = canvas.getContext("2d");
  context.fillStyle = "#e0218a";
  context.fillRect(x, y, size, size);
}

function begin() {
  const sheet = document.createElement("link");
  Object.assign(sheet, { rel: "stylesheet", href: "web/real_image.css" });
  document.head.append(sheet);
  const panel = document.createElement("details");
  panel.id = "real";
  panel.innerHTML = PANEL;
  document.querySelector("main").append(panel);
  panel.addEventListener("toggle", () => guarded(follow));
  // The page writes it for every model and version that it shows, however they were chosen.
  new MutationObserver(() => guarded(follow)).observe(at("provenance"), { childList: true });
  at("real-file").addEventListener("change", ({ target }) => {
    if (target.files[0]) guarded(() => open(target.files[0]));
  });
  const drop = at("real-drop");
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation(); // the page opens pictures of its own
    const [file] = event.dataTransfer.files;
    if (file) guarded(() => open(file));
  });
  at("real-class").addEventListener("change", () => guarded(look));
  at("real-mask").addEventListener("pointerdown", paint);
  at("real-mask").addEventListener("pointermove", paint);
  at("real-clear").addEventListener("click", () => {
    const { width, height } = at("real-mask");
    at("real-mask").getContext("2d").clearRect(0, 0, width, height);
  });
  at("real-go").addEventListener("click", () => guarded(fill));
}

begin();
