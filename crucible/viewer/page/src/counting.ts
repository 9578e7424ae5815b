// How many tokens move at each step of a block, and which.

import type { Motion } from "./protocol";

const ONES = Uint8Array.from({ length: 256 }, (_, byte) => [...byte.toString(2)].filter((bit) => bit === "1").length);

/** The tokens that move at every step of a block; of those alone whose bit is set in `among`, if that is given. */
export function countsOf(motion: Motion, among: Uint8Array | null = null): Uint32Array<ArrayBuffer> {
  const counts = new Uint32Array(motion.rows);
  for (let row = 0; row < motion.rows; row++) {
    const from = row * motion.bytesPerRow;
    for (let byte = 0; byte < motion.bytesPerRow; byte++) counts[row] += ONES[motion.bits[from + byte] & (among ? among[byte] : 255)];
  }
  return counts;
}

/** Who moved at a step of a block: a function of the token's position. */
export function movedAt(motion: Motion, step: number): (token: number) => boolean {
  const row = (step - motion.first) * motion.bytesPerRow;
  return (token) => ((motion.bits[row + (token >> 3)] >> (token & 7)) & 1) === 1;
}
