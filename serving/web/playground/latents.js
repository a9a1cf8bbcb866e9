// Seeds to latents, as models/latents.py draws them: Philox's raw words, then Box and Muller. The last
// digit of a number may differ from the server's: what must be equal to the byte is asked for by seed.

const MASK = 2n ** 64n - 1n;
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];

/** Ten rounds of Philox4x64 (Salmon et al. 2011). @param {bigint} counter @param {bigint} key */
function block(counter, key) {
  let [a, b, c, d] = [counter, 0n, 0n, 0n];
  let [k0, k1] = [key, 0n];
  for (let round = 0; round < 10; round += 1) {
    const one = MULTIPLIERS[0] * a;
    const two = MULTIPLIERS[1] * c;
    [a, b, c, d] = [(two >> 64n) ^ b ^ k0, two & MASK, (one >> 64n) ^ d ^ k1, one & MASK];
    k0 = (k0 + WEYL[0]) & MASK;
    k1 = (k1 + WEYL[1]) & MASK;
  }
  return [a, b, c, d];
}

/** @param {bigint} seed @param {number} dim @returns {number[]} z, in float32 */
export function latent(seed, dim) {
  /** @type {number[]} */
  const u = [];
  for (let counter = 1n; u.length < dim + (dim % 2); counter += 1n) {
    for (const word of block(counter, seed)) u.push((Number(word >> 11n) + 0.5) * 2 ** -53);
  }
  const z = [];
  for (let i = 0; i < dim; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(u[i]));
    const angle = 2 * Math.PI * u[i + 1];
    z.push(Math.fround(radius * Math.cos(angle)), Math.fround(radius * Math.sin(angle)));
  }
  return z.slice(0, dim);
}

/** @param {number[]} a */
export const norm = (a) => Math.hypot(...a);

/** On the great circle between two latents (Shoemake 1985). @param {number[]} a @param {number[]} b
 * @param {number} t */
export function slerp(a, b, t) {
  const norms = norm(a) * norm(b);
  const dot = a.reduce((sum, x, i) => sum + x * b[i], 0);
  const angle = Math.acos(norms ? Math.min(1, Math.max(-1, dot / norms)) : 1);
  const whole = Math.sin(angle);
  const [p, q] = whole < 1e-6 ? [1 - t, t] : [Math.sin((1 - t) * angle) / whole, Math.sin(t * angle) / whole];
  return a.map((x, i) => p * x + q * b[i]);
}

/** A - B + C, as long as C is: a sum of three latents is longer than the model knows.
 * @param {number[]} a @param {number[]} b @param {number[]} c */
export function arithmetic(a, b, c) {
  const sum = a.map((x, i) => x - b[i] + c[i]);
  const length = norm(sum);
  return length ? sum.map((x) => (x * norm(c)) / length) : sum;
}

/** Rows as JSON, in the digits that float32 has. @param {number[][]} rows */
export const written = (rows) => rows.map((row) => row.map((x) => Number(Math.fround(x).toPrecision(9))));
