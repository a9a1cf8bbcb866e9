// The panels beside the wall, in their order. A new one is one file and one line here.

import { arithmetic } from "./arithmetic.js";
import { directions } from "./directions.js";
import { lattice } from "./lattice.js";
import { path } from "./path.js";
import { styles } from "./styles.js";
import { units } from "./units.js";
import { versions } from "./versions.js";

/**
 * @typedef {object} Panel
 * @property {string} id  of its element
 * @property {string} title
 * @property {boolean} [open]  at the beginning
 * @property {(model: any) => boolean} isFor  whether a model of GET v1/models has what it needs
 * @property {(app: import("../app.js").App, body: HTMLElement) =>
 *   (changed: Set<string>, settled: boolean) => void} build  fills its element once, and returns what is
 *   called after each change of the state (with the fields that changed; `opened` when it is opened)
 */

/** @type {Panel[]} */
export const PANELS = [directions, styles, units, versions, path, lattice, arithmetic];
