// Where every token stands on three axes at every step of a slice: summed once, then only what changed is added.

import { asBits, layoutOf, tableOf, type Bits } from "./floats";
import type { Placed, PositionsJob } from "./protocol";
import { release, StoredArray, type Chunk } from "./zarr";

const AXES = 3;

/** So many tokens are reckoned before they are written out: a row of them fills a line of the processor's cache. */
const TOGETHER = 16;

/** Scratch of one token: its position's first row and the changes after it, on each axis. */
type Track = Float64Array[];

/**
 * Positions of some tiles of tokens over some rows of a block. `turn` is awaited after each tile, with the share that is done, so that the
 * job can be given up.
 */
export async function positions(job: PositionsJob, turn: (share: number) => Promise<void>): Promise<Placed> {
  const array = new StoredArray(job.weights);
  const all = array.shape[1];
  const [start, end] = job.tiles.map((tile) => Math.min(all, tile * array.chunkShape[1]));
  const tokens = end - start;
  const rows = job.rows[1] - job.rows[0];
  const bytes = 4 * rows * tokens;
  const room = job.room?.byteLength === AXES * bytes ? job.room : new ArrayBuffer(AXES * bytes);
  const [x, y, z] = [0, 1, 2].map((axis) => new Float32Array(room, axis * bytes, rows * tokens));
  const made: Placed = { first: job.block * array.chunkShape[0] + job.rows[0], rows, start, tokens, x, y, z };
  const tracks = Array.from({ length: TOGETHER }, () => job.axes.map(() => new Float64Array(rows)));
  let done = 0;
  for await (const chunk of array.block(job.block, job.tiles, job.file)) {
    place(chunk, job, made, tracks);
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
  /** Two neighbouring steps of 16 bits at once, where steps are neighbours. */
  pairs: Int32Array | null;
  /** Distances between neighbouring steps and dimensions, and how many there are of each. */
  forward: number;
  across: number;
  rows: number;
  hidden: number;
}

function place(chunk: Chunk, job: PositionsJob, made: Placed, tracks: Track[]): void {
  const [forward, down, across] = chunk.strides;
  const bits = asBits(chunk.values);
  const isPaired = bits.BYTES_PER_ELEMENT === 2 && forward === 1 && bits.byteOffset % 4 === 0;
  const weights: Weights = {
    bits,
    pairs: isPaired ? new Int32Array(bits.buffer, bits.byteOffset, bits.length >> 1) : null,
    table: tableOf(layoutOf(job.weights.metadata)),
    floats: chunk.values as Float32Array,
    forward,
    across,
    rows: made.rows,
    hidden: chunk.sizes[2],
  };
  for (let first = 0; first < chunk.sizes[1]; first += TOGETHER) {
    const count = Math.min(TOGETHER, chunk.sizes[1] - first);
    for (let i = 0; i < count; i++) {
      const at = (first + i) * down + job.rows[0] * forward;
      if (!follow(weights, at, job.axes, tracks[i])) plainly(weights, at, job.axes, tracks[i]);
    }
    writeOut(tracks, made, chunk.starts[1] + first - made.start, count);
  }
}

function writeOut(tracks: Track[], made: Placed, token: number, count: number): void {
  [made.x, made.y, made.z].forEach((out, axis) => {
    const sums = tracks.map((track) => track[axis]);
    for (let row = 0; row < made.rows; row++) {
      const to = row * made.tokens + token;
      for (let i = 0; i < count; i++) out[to + i] = sums[i][row];
    }
  });
}

/** Sum the first row, then add what changed; false if some weight is NaN or infinite: that would stay in the sum. */
function follow({ bits, table, floats, pairs, forward, across, rows, hidden }: Weights, at: number, axes: number[][], track: Track): boolean {
  const [x, y, z] = track;
  for (const sums of track) sums.fill(0);
  for (let j = 0; j < hidden; j++) {
    const [ax, ay, az] = [axes[0][j], axes[1][j], axes[2][j]];
    const start = at + j * across;
    let before = bits[start];
    let was = table ? table[before] : floats[start];
    x[0] += ax * was;
    y[0] += ay * was;
    z[0] += az * was;
    for (let row = 1; row < rows; row++) {
      if (pairs && ((start + row) & 1) === 0) {
        const pair = before | (before << 16);
        while (row + 1 < rows && pairs[(start + row) >> 1] === pair) row += 2;
        if (row >= rows) break;
      }
      const place = start + row * forward;
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
function plainly({ bits, table, floats, forward, across, rows, hidden }: Weights, at: number, axes: number[][], track: Track): void {
  for (let row = 0; row < rows; row++) {
    for (const sums of track) sums[row] = 0;
    for (let j = 0; j < hidden; j++) {
      const place = at + row * forward + j * across;
      const weight = table ? table[bits[place]] : floats[place];
      for (let axis = 0; axis < AXES; axis++) track[axis][row] += axes[axis][j] * weight;
    }
  }
}
