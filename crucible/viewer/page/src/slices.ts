// Steps whose positions are reckoned together: those of a chunk, or an equal part of them where a chunk has very many.

import type { Located } from "./protocol";

/** Three of them fit into the cache: the one that is shown, and those beside it. */
const MOST_SLICE_BYTES = 6 << 20;
const BYTES_EACH = 12;
const FEWEST_ROWS = 128;

/** The shape of a chunk: within a shard, if there are shards. */
export function innerShape(array: Located): number[] {
  const sharding = array.metadata.codecs.find((codec) => codec.name === "sharding_indexed");
  return sharding ? (sharding.configuration!.chunk_shape as number[]) : array.metadata.chunk_grid.configuration.chunk_shape;
}

/** Steps of a chunk. */
export function innerRows(array: Located): number {
  return innerShape(array)[0];
}

export class Slices {
  private readonly blockRows: number;
  private readonly rows: number;
  private readonly perBlock: number;
  private readonly steps: number;

  constructor(weights: Located) {
    const [steps, tokens] = weights.metadata.shape;
    this.steps = steps;
    this.blockRows = innerRows(weights);
    const most = Math.max(FEWEST_ROWS, Math.floor(MOST_SLICE_BYTES / (BYTES_EACH * Math.max(1, tokens))));
    this.rows = Math.ceil(this.blockRows / Math.ceil(this.blockRows / most));
    this.perBlock = Math.ceil(this.blockRows / this.rows);
  }

  get count(): number {
    return this.steps ? this.of(this.steps - 1) + 1 : 0;
  }

  /** The slice of a step. */
  of(step: number): number {
    const block = Math.floor(step / this.blockRows);
    return block * this.perBlock + Math.floor((step - block * this.blockRows) / this.rows);
  }

  /** The block of a slice, and its rows within that block: the first, and one past the last. */
  span(slice: number): { block: number; rows: [number, number] } {
    const block = Math.floor(slice / this.perBlock);
    const first = (slice % this.perBlock) * this.rows;
    const end = Math.min(first + this.rows, this.blockRows, this.steps - block * this.blockRows);
    return { block, rows: [first, end] };
  }

  /** How many steps of a slice there are. */
  rowsOf(slice: number): number {
    const [first, end] = this.span(slice).rows;
    return end - first;
  }
}
