// Where every token stands on three axes at every step of a block: summed once, then only what changed is added.

import { asBits, layoutOf, tableOf, type Bits } from "./floats";
import type { Placed, PositionsJob } from "./protocol";
import { release, StoredArray, type Chunk } from "./zarr";

const AXES = 3;

/** Scratch of one token: its position's first row and the changes after it, on each axis. */
type Track = Float64Array[];

/**
 * Positions of some tiles of tokens over a block of steps. `turn` is awaited after each tile, with the share that is done, so that the job can
 * be given up.
 */
export async function positions(job: PositionsJob, turn: (share: number) => Promise<void>): Promise<Placed> {
  const array = new StoredArray(job.weights);
  const [steps, all] = array.shape;
  const [start, end] = job.tiles.map((tile) => Math.min(all, tile * array.chunkShape[1]));
  const tokens = end - start;
  const first = job.block * array.chunkShape[0];
  const rows = Math.min(array.chunkShape[0], steps - first);
  const made: Placed = {
    first,
    rows,
    start,
    tokens,
    x: new Float32Array(rows * tokens),
    y: new Float32Array(rows * tokens),
    z: new Float32Array(rows * tokens),
  };
  const track: Track = job.axes.map(() => new Float64Array(rows));
  let done = 0;
  for await (const chunk of array.block(job.block, job.tiles, job.file)) {
    place(chunk, job, made, track);
    release(chunk);
    done += chunk.sizes[1];
    await turn(done / tokens);
  }
  return made;
}

/** The weights of a chunk: as bits, and as numbers by a table of all bits, or (float32) as they lie. */
interface Weights {
  bits: Bits;
  table: Float32Array | null;
  floats: Float32Array;
}

function place(chunk: Chunk, job: PositionsJob, made: Placed, track: Track): void {
  const weights: Weights = {
    bits: asBits(chunk.values),
    table: tableOf(layoutOf(job.weights.metadata)),
    floats: chunk.values as Float32Array,
  };
  const outs = [made.x, made.y, made.z];
  for (let i = 0; i < chunk.sizes[1]; i++) {
    const at = i * chunk.strides[1];
    if (!follow(weights, at, chunk, job.axes, track)) plainly(weights, at, chunk, job.axes, track);
    const token = chunk.starts[1] + i - made.start;
    for (let axis = 0; axis < AXES; axis++) {
      const [sums, out] = [track[axis], outs[axis]];
      for (let row = 0; row < made.rows; row++) out[row * made.tokens + token] = sums[row];
    }
  }
}

/** Sum the first row, then add what changed; false if some weight is NaN or infinite: that would stay in the sum. */
function follow({ bits, table, floats }: Weights, at: number, chunk: Chunk, axes: number[][], track: Track): boolean {
  const [forward, , across] = chunk.strides;
  const [rows, , hidden] = chunk.sizes;
  const [x, y, z] = track;
  for (const sums of track) sums.fill(0);
  for (let j = 0; j < hidden; j++) {
    const [ax, ay, az] = [axes[0][j], axes[1][j], axes[2][j]];
    let place = at + j * across;
    let before = bits[place];
    let was = table ? table[before] : floats[place];
    x[0] += ax * was;
    y[0] += ay * was;
    z[0] += az * was;
    for (let row = 1; row < rows; row++) {
      place += forward;
      const now = bits[place];
      if (now === before) continue;
      const is = table ? table[now] : floats[place];
      const change = is - was;
      x[row] += ax * change;
      y[row] += ay * change;
      z[row] += az * change;
      before = now;
      was = is;
    }
  }
  for (let row = 1; row < rows; row++) {
    x[row] += x[row - 1];
    y[row] += y[row - 1];
    z[row] += z[row - 1];
  }
  return Number.isFinite(x[rows - 1] + y[rows - 1] + z[rows - 1]);
}

/** The same by plain sums, row by row. */
function plainly({ bits, table, floats }: Weights, at: number, chunk: Chunk, axes: number[][], track: Track): void {
  const [forward, , across] = chunk.strides;
  const [rows, , hidden] = chunk.sizes;
  for (let row = 0; row < rows; row++) {
    for (const sums of track) sums[row] = 0;
    for (let j = 0; j < hidden; j++) {
      const place = at + row * forward + j * across;
      const weight = table ? table[bits[place]] : floats[place];
      for (let axis = 0; axis < AXES; axis++) track[axis][row] += axes[axis][j] * weight;
    }
  }
}
