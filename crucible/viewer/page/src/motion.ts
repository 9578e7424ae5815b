// Who moved when: read from a norm of the displacement, or from the weights where no norm was recorded; and the raster.

import { UnreadError } from "./codecs";
import { countsOf } from "./counting";
import { Norms } from "./displacement";
import { asBits } from "./floats";
import type { Bytes, Motion, MotionSource, Raster, RasterJob } from "./protocol";
import { release, StoredArray } from "./zarr";

const MOST_BYTES = 64 << 20;
/** A zoom into blocks that were dropped reads so many of them again. */
const MOST_AGAIN = 64;

/** What is kept of a block: all bits while there is room, else whether a token moved in it at all. */
interface Kept {
  motion: Motion;
  isWhole: boolean;
}

/** The moves in each cell of a raster, and the blocks that they are of. */
interface Tally {
  job: RasterJob;
  counts: Float32Array;
  counted: Set<Kept>;
}

/** Whether a tally holds nothing that is not in this raster, too. */
function goesOn({ job, counted }: Tally, next: RasterJob, found: Kept[]): boolean {
  if ((["rows", "columns", "from", "to"] as const).some((name) => job[name] !== next[name])) return false;
  const still = new Set(found);
  return [...counted].every((kept) => still.has(kept)) && next.rowOfToken.every((row, token) => row === job.rowOfToken[token]);
}

export class Motions {
  private kept = new Map<number, Kept>();
  private bytes = 0;
  /** The raster that was counted last: goes on from there while blocks arrive. */
  private tally: Tally | null = null;
  private last: { block: number; bits: Uint16Array | Uint32Array } | null = null;

  forget(): void {
    this.kept.clear();
    this.bytes = 0;
    this.last = this.tally = null;
  }

  /** The motion of a block of steps, as many rows as the source has. */
  async block(source: MotionSource, block: number): Promise<Motion> {
    const array = arrayOf(source);
    const rows = Math.min(array.chunkShape[0], array.shape[0] - block * array.chunkShape[0]);
    const known = this.kept.get(block);
    if (known && known.isWhole && known.motion.rows === rows) return known.motion;
    const motion = source.norm ? await fromNorm(array, block, source.threshold) : await this.fromWeights(source, array, block);
    this.keep(block, motion);
    return motion;
  }

  async raster(job: RasterJob): Promise<Raster> {
    const blockRows = arrayOf(job.source).chunkShape[0];
    const blocks: number[] = [];
    for (let block = Math.floor(job.from / blockRows); block * blockRows < job.to; block++) blocks.push(block);
    const missing = blocks.filter((block) => this.kept.has(block) && !this.kept.get(block)!.isWhole);
    if (missing.length <= MOST_AGAIN) for (const block of missing) await this.block(job.source, block);
    const found = blocks.flatMap((block) => this.kept.get(block) ?? []);
    if (!this.tally || !goesOn(this.tally, job, found)) {
      this.tally = { job, counts: new Float32Array(job.rows * job.columns), counted: new Set() };
    }
    const { counts, counted } = this.tally;
    for (const kept of found) {
      if (!counted.has(kept)) count(kept, blockRows, job, counts);
      counted.add(kept);
    }
    return { rows: job.rows, columns: job.columns, from: job.from, to: job.to, share: shares(counts, job) };
  }

  private keep(block: number, motion: Motion): void {
    const before = this.kept.get(block);
    if (before) this.bytes -= before.motion.bits.length;
    this.kept.delete(block);
    this.kept.set(block, { motion, isWhole: true });
    this.bytes += motion.bits.length;
    for (const [other, kept] of this.kept) {
      if (this.bytes <= MOST_BYTES || other === block) break;
      if (!kept.isWhole) continue;
      const any = anyOf(kept.motion);
      this.bytes += any.bits.length - kept.motion.bits.length;
      this.kept.set(other, { motion: any, isWhole: false });
    }
  }

  /** By the displacement of the weights. The row before a block is that of the block before. */
  private async fromWeights(source: MotionSource, array: StoredArray, block: number): Promise<Motion> {
    const [, tokens, hidden] = array.shape;
    let before: Uint16Array | Uint32Array | null = null;
    if (block > 0) before = this.last?.block === block - 1 ? this.last.bits : await lastRow(array, block - 1);
    const motion = emptyMotion(array, block);
    const end = new Uint32Array(tokens * hidden);
    const norms = new Norms(source.weights!.metadata, source.isProjected, source.by, Math.fround(source.threshold), motion.rows);
    for await (const chunk of array.block(block)) {
      const bits = asBits(chunk.values);
      const [forward, down, across] = chunk.strides;
      for (let i = 0; i < chunk.sizes[1]; i++) {
        const token = chunk.starts[1] + i;
        norms.clear();
        for (let j = 0; j < hidden; j++) {
          const at = i * down + j * across;
          end[token * hidden + j] = norms.add(bits, at, forward, before ? before[token * hidden + j] : bits[at]);
        }
        for (let row = 0; row < motion.rows; row++) if (norms.isMotion(row)) mark(motion, row, token);
      }
      release(chunk);
    }
    this.last = { block, bits: end };
    return counted(motion);
  }
}

function arrayOf(source: MotionSource): StoredArray {
  const found = source.norm ?? source.weights;
  if (!found) throw new UnreadError("the run keeps neither norms of its moves nor its weights");
  return new StoredArray(found);
}

async function fromNorm(array: StoredArray, block: number, threshold: number): Promise<Motion> {
  const motion = emptyMotion(array, block);
  const least = Math.fround(threshold);
  for await (const chunk of array.block(block)) {
    const norms = chunk.values as Float32Array;
    const [forward, down] = chunk.strides;
    for (let i = 0; i < chunk.sizes[1]; i++) {
      let at = i * down;
      for (let row = 0; row < motion.rows; row++, at += forward) {
        if (norms[at] >= least) mark(motion, row, chunk.starts[1] + i);
      }
    }
    release(chunk);
  }
  if (block === 0) motion.bits.fill(0, 0, motion.bytesPerRow); // nothing moves into the first state
  return counted(motion);
}

function emptyMotion(array: StoredArray, block: number): Motion {
  const first = block * array.chunkShape[0];
  const rows = Math.min(array.chunkShape[0], array.shape[0] - first);
  const bytesPerRow = (array.shape[1] + 7) >> 3;
  return { first, rows, bytesPerRow, bits: new Uint8Array(rows * bytesPerRow), counts: new Uint32Array(rows) };
}

function mark(motion: Motion, row: number, token: number): void {
  motion.bits[row * motion.bytesPerRow + (token >> 3)] |= 1 << (token & 7);
}

function counted(motion: Motion): Motion {
  return { ...motion, counts: countsOf(motion) };
}

function anyOf(motion: Motion): Motion {
  const bits = new Uint8Array(motion.bytesPerRow);
  for (let at = 0; at < motion.bits.length; at++) bits[at % motion.bytesPerRow] |= motion.bits[at];
  return { ...motion, bits };
}

async function lastRow(array: StoredArray, block: number): Promise<Uint32Array> {
  const [, tokens, hidden] = array.shape;
  const row = new Uint32Array(tokens * hidden);
  for await (const chunk of array.block(block)) {
    const bits = asBits(chunk.values);
    const from = (chunk.sizes[0] - 1) * chunk.strides[0];
    for (let i = 0; i < chunk.sizes[1]; i++) {
      const to = (chunk.starts[1] + i) * hidden;
      for (let j = 0; j < hidden; j++) row[to + j] = bits[from + i * chunk.strides[1] + j * chunk.strides[2]];
    }
    release(chunk);
  }
  return row;
}

/** Add a block's moves to the cells of the raster. */
function count(kept: Kept, blockRows: number, job: RasterJob, counts: Float32Array): void {
  const { motion, isWhole } = kept;
  const scale = job.columns / (job.to - job.from);
  for (let row = 0; row < motion.rows; row++) {
    const step = motion.first + row;
    if (step < job.from || step >= job.to) continue;
    const column = Math.floor((step - job.from) * scale);
    const until = Math.max(column + 1, Math.floor((step + 1 - job.from) * scale));
    const start = isWhole ? row * motion.bytesPerRow : 0;
    if (isWhole && !motion.counts[row]) continue;
    for (let byte = 0; byte < motion.bytesPerRow; byte++) {
      let bits = motion.bits[start + byte];
      for (let token = byte << 3; bits; token++, bits >>= 1) {
        if (!(bits & 1)) continue;
        const line = job.rowOfToken[token] * job.columns;
        if (line < 0) continue;
        for (let c = column; c < until; c++) counts[line + c] += isWhole ? 1 : 1 / blockRows;
      }
    }
  }
}

/** Counts as shares of all token-steps of a cell; a single move stays visible. */
function shares(counts: Float32Array, job: RasterJob): Bytes {
  const tokens = new Float32Array(job.rows);
  for (const row of job.rowOfToken) if (row >= 0) tokens[row]++;
  const steps = stepsOfColumns(job);
  const out = new Uint8Array(counts.length);
  for (let at = 0; at < counts.length; at++) {
    if (!counts[at]) continue;
    const most = Math.max(1, tokens[Math.floor(at / job.columns)] * steps[at % job.columns]);
    out[at] = Math.max(1, Math.min(255, Math.round((255 * counts[at]) / most)));
  }
  return out;
}

/** How many steps fall into each column: where they do not divide evenly, some have one more. */
function stepsOfColumns(job: RasterJob): Uint32Array {
  const steps = new Uint32Array(job.columns);
  const scale = job.columns / (job.to - job.from);
  for (let step = 0; step < job.to - job.from; step++) steps[Math.floor(step * scale)]++;
  return steps.map((count) => Math.max(1, count));
}
