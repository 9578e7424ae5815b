// What the page asks of its workers, and what they answer.

export type Bytes = Uint8Array<ArrayBuffer>;
export type Numbers =
  | Int8Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>;

export interface Codec {
  name: string;
  configuration?: Record<string, unknown>;
}

/** The zarr.json of an array, as far as it is read. */
export interface ArrayMetadata {
  shape: number[];
  data_type: string;
  chunk_grid: { name: string; configuration: { chunk_shape: number[] } };
  chunk_key_encoding: { name: string; configuration?: { separator?: string } };
  codecs: Codec[];
  dimension_names?: string[];
  attributes?: Record<string, unknown>;
}

/** An array at one commit: where its files lie, and the part of their addresses that names run and generation. */
export interface Located {
  url: string;
  tag: string;
  metadata: ArrayMetadata;
}

export interface ReadJob {
  kind: "read";
  array: Located;
}

export interface FileJob {
  kind: "file";
  array: Located;
  block: number;
}

export interface PositionsJob {
  kind: "positions";
  weights: Located;
  block: number;
  /** The rows of the block that are wanted: the first, and one past the last. */
  rows: [number, number];
  /** The chunks along the tokens that are wanted: the first, and one past the last. */
  tiles: [number, number];
  /** The block's file, where all its tiles are in one: fetched once, for both workers. */
  file: Bytes | null;
  axes: number[][];
  /** Memory for the answer, if there is some of the right size: what is sent or fetched is freed late, so it is used again. */
  room: ArrayBuffer | null;
}

export interface MotionJob {
  kind: "motion";
  source: MotionSource;
  block: number;
}

export type Norm = "l1" | "l2" | "linf";

/** Where motion is read from: a norm with its threshold, or the weights themselves, where that norm was not recorded. */
export interface MotionSource {
  norm: Located | null;
  weights: Located | null;
  threshold: number;
  /** Which norm. */
  by: Norm;
  /** Whether float32 weights are measured on the lattice of bfloat16. */
  isProjected: boolean;
}

export interface RasterJob {
  kind: "raster";
  source: MotionSource;
  /** The line of each token, -1 for one that is not shown. */
  rowOfToken: Int32Array;
  rows: number;
  columns: number;
  from: number;
  to: number;
}

export interface TokenJob {
  kind: "token";
  weights: Located;
  block: number;
  token: number;
}

export interface ForgetJob {
  kind: "forget";
}

export type Job = ReadJob | FileJob | PositionsJob | MotionJob | RasterJob | TokenJob | ForgetJob;

/** Positions of `tokens` tokens from `start` on, on three axes at every step of a slice: row r, token i at [r * tokens + i]. */
export interface Placed {
  first: number;
  rows: number;
  start: number;
  tokens: number;
  x: Float32Array<ArrayBuffer>;
  y: Float32Array<ArrayBuffer>;
  z: Float32Array<ArrayBuffer>;
}

/** Positions of all tokens. */
export interface Positions extends Placed {
  /** Mean of the finite ones, (row, axis). */
  centre: Float64Array<ArrayBuffer>;
  /** Tokens with a weight that is NaN or infinite, by row. */
  strange: Uint32Array<ArrayBuffer>;
}

/** Who moved at every step of a block: bit i & 7 of byte [r * bytesPerRow + (i >> 3)]. */
export interface Motion {
  first: number;
  rows: number;
  bytesPerRow: number;
  bits: Bytes;
  counts: Uint32Array<ArrayBuffer>;
}

/** How much of each cell of the raster moved, 0 to 255; any motion at all is at least 1. */
export interface Raster {
  rows: number;
  columns: number;
  from: number;
  to: number;
  share: Bytes;
}

/** The bits of one token over a block: row r, dimension j at [j * rows + r]. */
export interface TokenBits {
  first: number;
  rows: number;
  hidden: number;
  bits: Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
}

export interface Whole {
  shape: number[];
  values: Numbers;
}

export interface Answers {
  read: Whole;
  file: Bytes;
  positions: Placed;
  motion: Motion;
  raster: Raster;
  token: TokenBits;
  forget: null;
}

export type Message = { id: number; job: Job } | { id: number; cancel: true };

export type Reply =
  | { id: number; done: unknown }
  | { id: number; failed: { kind: "unread" | "cancelled" | "unknown"; message: string } }
  | { id: number; progress: number };
