// Requests that make images again: as a URL, as JSON, as a line for a shell, as a Python program.

import { partsOf, queryOf } from "./state.js";

export const GENERATE = "v1/generate";
export const INTERPOLATE = "v1/interpolate";

const KEY = '-H "Authorization: Bearer $KEY"';
/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** @param {import("./state.js").State} state @param {any} model */
const versionOf = (state, model) => state.version ?? model.version;

/** The path of an image, which names its version, so that it may be cached for ever.
 * @param {import("./state.js").State} state @param {any} model @param {bigint} seed */
export function imagePath(state, model, seed) {
  /** @type {[string, any][]} */
  const pairs = [["version", versionOf(state, model)]];
  if (model.labels && state.label !== null) pairs.push(["label", state.label]);
  if (state.psi !== 1) pairs.push(["truncation", state.psi]);
  pairs.push(...partsOf(state));
  return `v1/models/${encodeURIComponent(model.name)}/images/${seed}.png?${queryOf(pairs)}`;
}

/** The fields of a request that its images depend on, beside seeds and label.
 * @param {import("./state.js").State} state @param {any} model @returns {Record<string, any>} */
export function fieldsOf(state, model) {
  /** @type {Record<string, any>} */
  const fields = { model: model.name, version: versionOf(state, model), truncation: state.psi };
  if (state.directions.size) fields.directions = Object.fromEntries(state.directions);
  const { from, layers, truncation } = state.styles;
  const styles = {
    ...(from !== null && layers.length ? { from: String(from), layers } : {}),
    ...(truncation ? { truncation } : {}),
  };
  if (Object.keys(styles).length) fields.styles = styles;
  if (state.off.length) fields.units_off = state.off;
  return fields;
}

/** Seeds have 64 bits: JavaScript would round them if it read them as numbers.
 * @param {bigint[]} seeds @param {Record<string, any>} fields */
export const bodyOf = (seeds, fields) => `{"seeds":[${seeds.join()}],${JSON.stringify(fields).slice(1)}`;

/** @param {string} name label or labels @param {import("./state.js").State} state @param {any} model */
export const labelled = (name, state, model) => (model.labels ? { [name]: state.label ?? 0 } : {});

/** @param {string} path */
export const absolute = (path) => new URL(path, document.baseURI.replace(/#.*/, "")).href;

/** The line names a variable, so that the key stays out of the shell's history.
 * @param {string} path @param {boolean} hasKey */
export const curl = (path, hasKey) =>
  `curl -s ${quoted(absolute(path))}${hasKey ? ` ${KEY}` : ""} -o image.png`;

/** The seed is a string of digits, which every reader of JSON keeps.
 * @param {import("./state.js").State} state @param {any} model @param {bigint} seed @param {boolean} hasKey */
export function python(state, model, seed, hasKey) {
  const fields = {
    ...fieldsOf(state, model),
    seeds: [String(seed)],
    ...labelled("labels", state, model),
    format: "png",
  };
  const key = hasKey ? ", headers={\"Authorization\": f\"Bearer {os.environ['KEY']}\"}" : "";
  return [
    hasKey ? "import os\n\nimport httpx\n" : "import httpx\n",
    `body = ${JSON.stringify(fields)}`,
    `reply = httpx.post(${JSON.stringify(absolute(GENERATE))}, json=body${key})`,
    "reply.raise_for_status()",
    'open("image.png", "wb").write(reply.content)\n',
  ].join("\n");
}
