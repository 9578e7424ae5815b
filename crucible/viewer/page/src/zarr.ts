// One Zarr v3 array at one commit: regular chunks, or shards with an index; whole blocks of steps, or single chunks.

import { asNumbers, decodeBytes, itemBytes, UnreadError, withoutCrc } from "./codecs";
import { drop, giveBack } from "./memory";
import type { Bytes, Codec, Located, Numbers } from "./protocol";
import { fetchFile, fetchRange, fetchTail, name } from "./transport";

const ENTRY_BYTES = 16;
const CRC_BYTES = 4;
const NO_CHUNK = 0xffffffffffffffffn;
const MOST_INDEXES = 256;

/** A decoded chunk: numbers as they lie, the distance between neighbours of each dimension, where it begins. */
export interface Chunk {
  values: Numbers;
  strides: number[];
  starts: number[];
  /** How much of it lies within the array, by dimension. */
  sizes: number[];
}

/** Give the memory of a chunk back: the next one is decoded into it. */
export function release(chunk: Chunk): void {
  giveBack(chunk.values.buffer);
}

interface Sharding {
  shape: number[];
  codecs: Codec[];
  indexAtEnd: boolean;
  indexHasCrc: boolean;
}

export class StoredArray {
  readonly shape: number[];
  readonly chunkShape: number[];
  private readonly fileShape: number[];
  private readonly sharding: Sharding | null;
  private readonly order: number[];
  private readonly packing: Codec[];
  private readonly dataType: string;

  constructor(private readonly at: Located) {
    const metadata = at.metadata;
    this.shape = metadata.shape;
    this.dataType = metadata.data_type;
    this.fileShape = metadata.chunk_grid.configuration.chunk_shape;
    this.sharding = shardingOf(metadata.codecs);
    this.chunkShape = this.sharding ? this.sharding.shape : this.fileShape;
    const codecs = this.sharding ? this.sharding.codecs : metadata.codecs;
    this.order = orderOf(codecs, this.shape.length);
    this.packing = codecs.filter((codec) => codec.name !== "transpose" && codec.name !== "bytes");
  }

  /** Number of chunks along each dimension. */
  get grid(): number[] {
    return this.shape.map((size, axis) => Math.ceil(size / this.chunkShape[axis]));
  }

  /**
   * Every chunk of a block of steps, or of those between two tiles of tokens, each file fetched whole and once; files
   * of a block at the same time. `file` is the one of the block, where it was fetched before.
   */
  async *block(block: number, tiles: [number, number] = [0, Infinity], file: Bytes | null = null): AsyncGenerator<Chunk> {
    const all = cells([1, ...this.grid.slice(1)]).map(([, ...rest]) => [block, ...rest]);
    const indices = all.filter(([, tile]) => tile >= tiles[0] && tile < tiles[1]);
    if (!this.sharding) {
      const files = indices.map((index) => quiet(fetchFile(this.url(index))));
      for (let i = 0; i < indices.length; i++) yield this.decodeAlone(await files[i], indices[i]);
      return;
    }
    let bytes: Bytes = new Uint8Array(0);
    let entries: BigUint64Array = new BigUint64Array(0);
    let from = "";
    for (const index of indices) {
      const url = this.url(this.fileOf(index));
      if (url !== from) {
        drop(bytes.buffer);
        bytes = file ?? (await fetchFile(url));
        entries = this.indexIn(bytes, url);
        from = url;
      }
      const [start, count] = this.entry(entries, index, url);
      if (start + count > bytes.length) throw new UnreadError(`${name(url)}: its index leads beyond its end`);
      yield this.decode(bytes.subarray(start, start + count), index);
    }
    drop(bytes.buffer);
  }

  /** The file of a block of steps in which all its tiles lie. */
  file(block: number): Promise<Bytes> {
    return fetchFile(this.url(this.fileOf([block, ...this.grid.slice(1).map(() => 0)])));
  }

  /** One chunk; of a shard only its own bytes and the index. An index that has grown old is read once again. */
  async chunk(index: number[]): Promise<Chunk> {
    if (!this.sharding) return this.decodeAlone(await fetchFile(this.url(index)), index);
    const url = this.url(this.fileOf(index));
    try {
      return await this.ranged(url, index);
    } catch (error) {
      if (!(error instanceof UnreadError) || !indexes.delete(url)) throw error;
      return this.ranged(url, index);
    }
  }

  /** The whole array, in the order of its dimensions. */
  async whole(): Promise<Numbers> {
    const total = this.shape.reduce((product, size) => product * size, 1);
    const all = asNumbers(new Uint8Array(total * itemBytes(this.dataType)), this.dataType);
    for (const index of cells(this.grid)) {
      const chunk = await this.chunk(index);
      copyInto(all as Float32Array, this.shape, chunk);
      release(chunk);
    }
    return all;
  }

  private async ranged(url: string, index: number[]): Promise<Chunk> {
    let entries = indexes.get(url);
    if (!entries) {
      const tail = this.sharding!.indexAtEnd
        ? await fetchTail(url, this.indexBytes())
        : await fetchRange(url, 0, this.indexBytes());
      entries = this.parseIndex(tail, url);
      if (indexes.size >= MOST_INDEXES) indexes.delete(indexes.keys().next().value!);
      indexes.set(url, entries);
    }
    const [start, count] = this.entry(entries, index, url);
    return this.decodeAlone(await fetchRange(url, start, count), index);
  }

  /** Decode a chunk from bytes that hold nothing else. */
  private decodeAlone(bytes: Bytes, index: number[]): Chunk {
    const chunk = this.decode(bytes, index);
    drop(bytes.buffer);
    return chunk;
  }

  private decode(bytes: Bytes, index: number[]): Chunk {
    const where = `${name(this.url(this.sharding ? this.fileOf(index) : index))}, chunk ${index.join(".")}`;
    const length = this.chunkShape.reduce((product, size) => product * size, 1) * itemBytes(this.dataType);
    const values = asNumbers(decodeBytes(bytes, this.packing, length, where), this.dataType);
    const starts = index.map((cell, axis) => cell * this.chunkShape[axis]);
    const sizes = starts.map((start, axis) => Math.min(this.chunkShape[axis], this.shape[axis] - start));
    return { values, strides: stridesOf(this.chunkShape, this.order), starts, sizes };
  }

  /** The rows that the commit vouches for stand in the address: a file that grows has another one. */
  private url(index: number[]): string {
    const separator = this.at.metadata.chunk_key_encoding.configuration?.separator ?? "/";
    const key = ["c", ...index].join(separator);
    const rows = index.length ? Math.min(this.fileShape[0], this.shape[0] - index[0] * this.fileShape[0]) : 0;
    return `${this.at.url}/${key}?${this.at.tag}&c=${rows}`;
  }

  private fileOf(index: number[]): number[] {
    return index.map((cell, axis) => Math.floor((cell * this.chunkShape[axis]) / this.fileShape[axis]));
  }

  private perFile(): number[] {
    return this.fileShape.map((size, axis) => size / this.chunkShape[axis]);
  }

  private indexBytes(): number {
    const count = this.perFile().reduce((product, size) => product * size, 1);
    return count * ENTRY_BYTES + (this.sharding!.indexHasCrc ? CRC_BYTES : 0);
  }

  private indexIn(bytes: Bytes, url: string): BigUint64Array {
    const size = this.indexBytes();
    if (bytes.length < size) throw new UnreadError(`${name(url)}: ${bytes.length} bytes, too short for its index`);
    return this.parseIndex(this.sharding!.indexAtEnd ? bytes.subarray(bytes.length - size) : bytes.subarray(0, size), url);
  }

  private parseIndex(bytes: Bytes, url: string): BigUint64Array {
    const entries = this.sharding!.indexHasCrc ? withoutCrc(bytes, `${name(url)}, index`) : bytes;
    return new BigUint64Array(entries.slice().buffer);
  }

  private entry(entries: BigUint64Array, index: number[], url: string): [number, number] {
    const per = this.perFile();
    const at = index.reduce((flat, cell, axis) => flat * per[axis] + (cell % per[axis]), 0);
    const [start, count] = [entries[2 * at], entries[2 * at + 1]];
    if (start === NO_CHUNK && count === NO_CHUNK) throw new UnreadError(`${name(url)}: chunk ${index.join(".")} is not in it`);
    return [Number(start), Number(count)];
  }
}

/** Indexes of shards by address, shared by all arrays of a worker. */
const indexes = new Map<string, BigUint64Array>();

/** A promise whose failure is told only to who waits for it. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

function shardingOf(codecs: Codec[]): Sharding | null {
  const found = codecs.find((codec) => codec.name === "sharding_indexed");
  if (!found) return null;
  if (codecs.length > 1) throw new UnreadError("shards within other codecs are not known to this page");
  const how = found.configuration as {
    chunk_shape: number[];
    codecs: Codec[];
    index_codecs: Codec[];
    index_location?: string;
  };
  return {
    shape: how.chunk_shape,
    codecs: how.codecs,
    indexAtEnd: how.index_location !== "start",
    indexHasCrc: how.index_codecs.some((codec) => codec.name === "crc32c"),
  };
}

function orderOf(codecs: Codec[], dimensions: number): number[] {
  const bytes = codecs.find((codec) => codec.name === "bytes");
  if (bytes?.configuration?.endian === "big") throw new UnreadError("big-endian numbers are not known to this page");
  const transpose = codecs.find((codec) => codec.name === "transpose");
  return transpose ? (transpose.configuration!.order as number[]) : [...Array(dimensions).keys()];
}

/** The distance between neighbours along each dimension, where `order` is that of the bytes, slowest first. */
function stridesOf(shape: number[], order: number[]): number[] {
  const strides: number[] = Array(shape.length).fill(1);
  let step = 1;
  for (const axis of [...order].reverse()) {
    strides[axis] = step;
    step *= shape[axis];
  }
  return strides;
}

/** Every index of a grid, the last dimension fastest. */
function cells(grid: number[]): number[][] {
  return grid.reduce<number[][]>(
    (made, size) => made.flatMap((index) => [...Array(size).keys()].map((cell) => [...index, cell])),
    [[]],
  );
}

function copyInto(all: Float32Array, shape: number[], chunk: Chunk): void {
  const values = chunk.values as Float32Array;
  const whole = stridesOf(shape, [...Array(shape.length).keys()]);
  const walk = (axis: number, from: number, to: number): void => {
    if (axis === shape.length) {
      all[to] = values[from];
      return;
    }
    for (let i = 0; i < chunk.sizes[axis]; i++) {
      walk(axis + 1, from + i * chunk.strides[axis], to + (chunk.starts[axis] + i) * whole[axis]);
    }
  };
  walk(0, 0, 0);
}
