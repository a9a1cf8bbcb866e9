// @ts-check
// What can be kept of a game: a picture, a film, the command line, the points, the link.

import { colour } from "./colours.js";
import { animation, still } from "./webp.js";

const FILM_MS = 100; // from one still to the next
const FILM_SIDE = 320;
const MOST_STILLS = 120;
const QUALITY = 0.7;
const HEAD = 22; // pixels above each board, for the caption

/** @typedef {import("./view.js").View} View */

/** The boards of all games on one canvas, with a line of text above each. @param {View[]} views @param {number} side */
export function together(views, side) {
  const canvas = document.createElement("canvas");
  canvas.width = side * views.length;
  canvas.height = side + HEAD;
  const context = canvas.getContext("2d", { alpha: false });
  if (!context) throw new Error("no canvas");
  context.fillStyle = colour("ground");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = "13px system-ui, sans-serif";
  context.imageSmoothingQuality = "high";
  views.forEach((view, i) => {
    const head = view.frame?.head;
    context.fillStyle = colour("ink");
    if (head) {
      const what = view.title.textContent ? `${view.name}  ` : "";
      context.fillText(`${what}round ${head.round}   ${head.coverage[0]}/${head.coverage[1]} modes`, i * side + 6, 15, side - 12);
    }
    context.drawImage(view.board.canvas, i * side, HEAD, side, side);
  });
  return canvas;
}

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** @param {View[]} views */
export async function savePng(views) {
  const side = Math.max(...views.map((view) => view.board.canvas.width), FILM_SIDE);
  save(await still(together(views, side), "image/png"), "lab.png");
}

export class Film {
  /** @param {() => View[]} views @param {(num: number) => void} counted */
  constructor(views, counted) {
    /** @type {Promise<Blob>[]} */
    this.stills = [];
    this.size = [0, 0];
    this.timer = setInterval(() => {
      const canvas = together(views(), FILM_SIDE);
      if (this.stills.length && (canvas.width !== this.size[0] || canvas.height !== this.size[1])) return;
      this.size = [canvas.width, canvas.height];
      this.stills.push(still(canvas, "image/webp", QUALITY));
      counted(this.stills.length);
    }, FILM_MS);
  }

  get isFull() {
    return this.stills.length >= MOST_STILLS;
  }

  async end() {
    clearInterval(this.timer);
    const blobs = await Promise.all(this.stills);
    if (!blobs.length) return;
    const contents = await Promise.all(blobs.map(async (blob) => new Uint8Array(await blob.arrayBuffer())));
    save(animation(contents, this.size[0], this.size[1], FILM_MS), "lab.webp");
  }
}
