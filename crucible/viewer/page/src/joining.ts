// The positions of a block, put together from those that the workers reckoned, with the mean of each row.

import { take } from "./memory";
import type { Placed, Positions } from "./protocol";

const AXES = 3;

/** Parts side by side, in the order of their tokens, in memory of their own. */
export function join(parts: Placed[]): Positions {
  const { first, rows } = parts[0];
  const tokens = parts.reduce((sum, part) => sum + part.tokens, 0);
  const beside = (axis: "x" | "y" | "z"): Float32Array<ArrayBuffer> => {
    const all = new Float32Array(take(4 * rows * tokens).buffer);
    for (const part of parts) {
      for (let row = 0; row < rows; row++) {
        all.set(part[axis].subarray(row * part.tokens, (row + 1) * part.tokens), row * tokens + part.start);
      }
    }
    return all;
  };
  const made: Positions = {
    first,
    rows,
    start: 0,
    tokens,
    x: beside("x"),
    y: beside("y"),
    z: beside("z"),
    centre: new Float64Array(rows * AXES),
    strange: new Uint32Array(rows),
  };
  centre(made);
  return made;
}

/** The mean of the finite positions of each row. */
function centre(made: Positions): void {
  for (let row = 0; row < made.rows; row++) {
    const sums = [0, 0, 0];
    let count = 0;
    for (let at = row * made.tokens; at < (row + 1) * made.tokens; at++) {
      if (!Number.isFinite(made.x[at] + made.y[at] + made.z[at])) continue;
      sums[0] += made.x[at];
      sums[1] += made.y[at];
      sums[2] += made.z[at];
      count++;
    }
    made.strange[row] = made.tokens - count;
    for (let axis = 0; axis < AXES; axis++) made.centre[row * AXES + axis] = sums[axis] / Math.max(1, count);
  }
}
