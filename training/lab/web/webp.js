// @ts-check
// Stills that the browser encodes, joined to an animated WebP (container of RFC 9649).

const HEADER = 12; // "RIFF", size, "WEBP"

/** @param {number} value @param {number} bytes */
const little = (value, bytes) => Uint8Array.from({ length: bytes }, (_, i) => Math.floor(value / 256 ** i) % 256);
const letters = (/** @type {string} */ text) => new TextEncoder().encode(text);

/** @param {Uint8Array[]} parts */
function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** @param {string} name @param {Uint8Array} content */
const chunk = (name, content) =>
  joined([letters(name), little(content.length, 4), content, new Uint8Array(content.length % 2)]);

/** The chunks of a still that hold its picture: VP8 or VP8L, perhaps behind ALPH. @param {Uint8Array} still */
function picture(still) {
  const view = new DataView(still.buffer, still.byteOffset, still.length);
  const kept = [];
  for (let at = HEADER; at + 8 <= still.length; ) {
    const name = String.fromCharCode(...still.subarray(at, at + 4));
    const size = view.getUint32(at + 4, true);
    const end = at + 8 + size + (size % 2);
    if (["VP8 ", "VP8L", "ALPH"].includes(name)) kept.push(still.subarray(at, end));
    at = end;
  }
  if (!kept.length) throw new Error("the browser can't write WebP");
  return joined(kept);
}

/** @param {Uint8Array[]} stills all of one size @param {number} width @param {number} height @param {number} ms from one to the next */
export function animation(stills, width, height, ms) {
  const size = joined([little(width - 1, 3), little(height - 1, 3)]);
  const frames = stills.map((still) =>
    chunk("ANMF", joined([little(0, 3), little(0, 3), size, little(ms, 3), Uint8Array.of(0), picture(still)])),
  );
  const isAnimated = Uint8Array.of(0x02, 0, 0, 0);
  const body = joined([
    letters("WEBP"),
    chunk("VP8X", joined([isAnimated, size])),
    chunk("ANIM", joined([Uint8Array.of(255, 255, 255, 255), little(0, 2)])),
    ...frames,
  ]);
  return new Blob([letters("RIFF"), little(body.length, 4), body], { type: "image/webp" });
}

/** @param {HTMLCanvasElement} canvas @param {string} type @param {number} [quality] @returns {Promise<Blob>} */
export function still(canvas, type, quality) {
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), type, quality),
  );
}
