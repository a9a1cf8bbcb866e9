// The words that a PNG carries (ISO/IEC 15948, tEXt), and the state that they stand for.

import { initial, seedOf } from "./state.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** @param {ArrayBuffer} file @returns {Record<string, string>} @throws {Error} if it is no PNG */
export function textOf(file) {
  const bytes = new Uint8Array(file);
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) throw new Error("This file is not a PNG.");
  const view = new DataView(file);
  const latin = new TextDecoder("latin1");
  /** @type {Record<string, string>} */
  const found = {};
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (latin.decode(bytes.subarray(at + 4, at + 8)) === "tEXt") {
      const text = latin.decode(data);
      const end = text.indexOf("\0");
      found[text.slice(0, end)] = text.slice(end + 1);
    }
    at += 12 + length;
  }
  return found;
}

/** The state in which an image is shown that carries these words.
 * @param {Record<string, string>} told @param {any[]} models
 * @throws {Error} in words, if it can't be shown here */
export function stateOf(told, models) {
  if (!told.model || !told.version) throw new Error("This PNG does not say how it was made.");
  const model = models.find(({ name }) => name === told.model);
  if (!model) throw new Error(`It was made by the model ${told.model}, which is not served here.`);
  const seed = seedOf(told.seed ?? "");
  if (seed === null) throw new Error("It was made of no single seed: it can't be opened here.");
  const version = Number(told.version);
  if (!model.versions.includes(version)) {
    throw new Error(`It was made by version ${version} of ${told.model}, which is not served any more.`);
  }
  const state = initial();
  Object.assign(state, { model: model.name, first: seed, image: seed, psi: Number(told.truncation ?? 1) });
  if (version !== model.version) state.version = version;
  if (told.label !== undefined) state.label = Number(told.label);
  for (const part of (told.directions ?? "").split(",").filter(Boolean)) {
    const end = part.lastIndexOf(":");
    state.directions.set(decodeURIComponent(part.slice(0, end)), Number(part.slice(end + 1)));
  }
  if (told.styles) {
    const { layers = [], truncation = null } = JSON.parse(told.styles);
    // A number would be rounded: the digits are read as they stand.
    const from = seedOf(/"from":"?(\d+)/.exec(told.styles)?.[1] ?? "");
    state.styles = { from, layers, truncation };
  }
  if (told.units_off) state.off = told.units_off.split(",").map(Number);
  return state;
}

/** Words on an image of which other bytes are served under its version. @param {Record<string, string>} told
 * @param {string} digest of the version that is served */
export const otherDigest = (told, digest) =>
  told.digest && told.digest !== digest
    ? `It was made by a bundle of digest ${told.digest.slice(0, 16)}, this server has another one: the image may differ.`
    : "";
