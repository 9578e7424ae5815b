// Zstandard (RFC 8878): frames of known length into memory that is given. Written for chunks of weights: long copies.

import { lastBit, onlyState, readHuffman, readStates, statesOf, unhuffman, type Huffman, type States } from "./entropy";
import type { Bytes } from "./protocol";

const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;
const MOST_BLOCK = 1 << 17;
/** Words of 4 bytes are read: so many may lie behind the last that counts. */
const BEHIND = 4;
/** Copies reach back 32 MB at most, more than a chunk is large: their distance is read at once. */
const FARTHEST = 24;
/** From so many bytes on, the engine's own copying is faster than a loop. */
const LONG = 32;

/** Of each code of a length: the least value, and how many bits are added. */
const LITERALS = values([...Array(16).fill(0), 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], 0);
const MATCHES = values([...Array(32).fill(0), 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], 3);

const USUAL = {
  literals: statesOf([4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1], 6),
  offsets: statesOf([1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1], 5),
  matches: statesOf(
    [1, 4, 3, 2, 2, 2, 2, 2, 2, ...Array(37).fill(1), -1, -1, -1, -1, -1, -1, -1],
    6,
  ),
};

interface Values {
  least: Uint32Array;
  more: Uint8Array;
}

function values(more: number[], first: number): Values {
  let next = first;
  const least = more.map((bits) => {
    const own = next;
    next += 1 << bits;
    return own;
  });
  return { least: Uint32Array.from(least), more: Uint8Array.from(more) };
}

const literalsOfBlock = new Uint8Array(MOST_BLOCK);

/** What a frame carries from block to block. */
class Frame {
  huffman: Huffman | null = null;
  literals: States | null = null;
  offsets: States | null = null;
  matches: States | null = null;
  recent: [number, number, number] = [1, 4, 8];

  constructor(readonly start: number) {}
}

/** Unpack all frames of `bytes` into `out`, which they fill; an Error where they do not. */
export function unpack(bytes: Bytes, out: Bytes): void {
  new Unpacking(padded(bytes), bytes.length, out).run();
}

/** The same bytes with room behind them. */
function padded(bytes: Bytes): Bytes {
  if (bytes.byteOffset + bytes.length + BEHIND <= bytes.buffer.byteLength) return bytes;
  const roomy = new Uint8Array(bytes.length + BEHIND);
  roomy.set(bytes);
  return roomy;
}

class Unpacking {
  private readonly view: DataView;
  private at = 0;
  /** How much of `out` is filled. */
  private filled = 0;
  private frame = new Frame(0);
  /** The literals of a block: where they are, and where they begin. */
  private source: Uint8Array = literalsOfBlock;
  private first = 0;

  constructor(
    private readonly bytes: Bytes,
    private readonly end: number,
    private readonly out: Bytes,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, Math.min(bytes.buffer.byteLength - bytes.byteOffset, end + BEHIND));
  }

  run(): void {
    while (this.at < this.end) {
      const magic = this.view.getUint32(this.at, true);
      if (magic === MAGIC) this.readFrame();
      else if ((magic & 0xfffffff0) === SKIPPABLE) this.at += 8 + this.view.getUint32(this.at + 4, true);
      else throw new Error("not Zstandard");
    }
    if (this.at !== this.end) throw new Error("cut short");
    if (this.filled !== this.out.length) throw new Error(`${this.filled} bytes, expected ${this.out.length}`);
  }

  private readFrame(): void {
    const how = this.bytes[this.at + 4];
    const isOne = (how >> 5) & 1;
    if (how & 0x08) throw new Error("a frame of a later kind");
    if (how & 0x03) throw new Error("a dictionary is needed");
    const sizeBytes = [isOne, 2, 4, 8][how >> 6];
    this.at += 5 + (1 - isOne) + sizeBytes;
    this.frame = new Frame(this.filled);
    while (!this.readBlock()) if (this.at >= this.end) throw new Error("cut short");
    this.at += how & 0x04 ? 4 : 0; // its checksum: the chunk has one of its own
  }

  /** Unpack a block; whether it was the last of its frame. */
  private readBlock(): boolean {
    const { bytes, out } = this;
    const head = bytes[this.at] | (bytes[this.at + 1] << 8) | (bytes[this.at + 2] << 16);
    this.at += 3;
    const [kind, size] = [(head >> 1) & 3, head >> 3];
    const taken = kind === 1 ? 1 : size;
    if (this.at + taken > this.end) throw new Error("cut short");
    if (kind === 3 || (kind !== 2 && this.filled + size > out.length)) throw new Error("more than expected");
    if (kind === 0) out.set(bytes.subarray(this.at, this.at + size), this.filled);
    else if (kind === 1) out.fill(bytes[this.at], this.filled, this.filled + size);
    else this.readPacked(this.at, this.at + size);
    if (kind !== 2) this.filled += size;
    this.at += taken;
    return (head & 1) === 1;
  }

  private readPacked(start: number, end: number): void {
    const { at, count } = this.readLiterals(start, end);
    const { bytes } = this;
    let sequences = bytes[at];
    let next = at + 1;
    if (sequences === 255) {
      sequences = bytes[at + 1] + (bytes[at + 2] << 8) + 0x7f00;
      next = at + 3;
    } else if (sequences > 127) {
      sequences = ((sequences - 128) << 8) + bytes[at + 1];
      next = at + 2;
    }
    const left = sequences ? this.copySequences(sequences, next, end, this.first + count) : this.first;
    this.copyLiterals(left, this.first + count - left);
  }

  /** Find the literals of a block, unpacking them where they are packed; how many there are, and where they end. */
  private readLiterals(start: number, end: number): { at: number; count: number } {
    const { bytes } = this;
    const [kind, format] = [bytes[start] & 3, (bytes[start] >> 2) & 3];
    const head = this.view.getUint32(start, true);
    if (kind < 2) {
      const [size, count] = format === 1 ? [2, (head >> 4) & 0xfff] : format === 3 ? [3, (head >> 4) & 0xfffff] : [1, bytes[start] >> 3];
      if (count > MOST_BLOCK) throw new Error("too many literals");
      [this.source, this.first] = kind === 0 ? [bytes, start + size] : [literalsOfBlock.fill(bytes[start + size], 0, count), 0];
      return { at: start + size + (kind === 0 ? count : 1), count };
    }
    const width = format < 2 ? 10 : format === 2 ? 14 : 18;
    const mask = (1 << width) - 1;
    const size = width === 10 ? 3 : width === 14 ? 4 : 5;
    const count = (head >>> 4) & mask;
    const packed = width === 18 ? (head >>> 22) | (bytes[start + 4] << 10) : (head >>> (4 + width)) & mask;
    const [from, to] = [start + size, start + size + packed];
    if (count > MOST_BLOCK || to > end) throw new Error("too many literals");
    this.unpackLiterals(kind === 2, format === 0, from, to, count);
    [this.source, this.first] = [literalsOfBlock, 0];
    return { at: to, count };
  }

  private unpackLiterals(hasCode: boolean, isOneStream: boolean, from: number, to: number, count: number): void {
    let at = from;
    if (hasCode) {
      const found = readHuffman(this.bytes, from);
      this.frame.huffman = found.huffman;
      at = found.end;
    }
    const code = this.frame.huffman;
    if (!code) throw new Error("literals without a code");
    const read = (start: number, size: number, first: number, last: number): void => {
      if (size < 1 || start + size > to) throw new Error("literals that are cut short");
      unhuffman(code, this.view, start, size, literalsOfBlock, first, last);
    };
    if (isOneStream) {
      read(at, to - at, 0, count);
      return;
    }
    const quarter = (count + 3) >> 2;
    let start = at + 6;
    for (let stream = 0; stream < 4; stream++) {
      const size = stream < 3 ? this.view.getUint16(at + 2 * stream, true) : to - start;
      read(start, size, Math.min(count, stream * quarter), stream < 3 ? Math.min(count, (stream + 1) * quarter) : count);
      start += size;
    }
  }

  /** The tables of a block's sequences; where they end. */
  private readTables(at: number): number {
    const { bytes, frame } = this;
    const kinds = bytes[at];
    let next = at + 1;
    const one = (kind: number, usual: States, last: States | null, mostLog: number): States => {
      if (kind === 0) return usual;
      if (kind === 1) return onlyState(bytes[next++]);
      if (kind === 2) {
        const { states, end } = readStates(bytes, next, mostLog);
        next = end;
        return states;
      }
      if (!last) throw new Error("a table that was never told");
      return last;
    };
    frame.literals = one(kinds >> 6, USUAL.literals, frame.literals, 9);
    frame.offsets = one((kinds >> 4) & 3, USUAL.offsets, frame.offsets, 8);
    frame.matches = one((kinds >> 2) & 3, USUAL.matches, frame.matches, 9);
    return next;
  }

  /** Literals and copies in turn; where the literals are that are left. */
  private copySequences(sequences: number, tables: number, end: number, literalsEnd: number): number {
    const start = this.readTables(tables);
    const { view, out, source, frame } = this;
    const [literals, offsets, matches] = [frame.literals!.entries, frame.offsets!.entries, frame.matches!.entries];
    let place = lastBit(this.bytes.subarray(start, end));
    const read = (count: number): number => {
      place -= count;
      return (view.getUint32(start + (place >> 3), true) >>> (place & 7)) & ((1 << count) - 1);
    };
    let literal = literals[read(frame.literals!.log)];
    let far = offsets[read(frame.offsets!.log)];
    let match = matches[read(frame.matches!.log)];
    let [filled, from] = [this.filled, this.first];
    let [recent, second, third] = frame.recent;
    for (let left = sequences; left > 0; left--) {
      const power = far >>> 24;
      if (power > FARTHEST) throw new Error("a copy from too far away");
      let offset = (1 << power) + read(power);
      const length = MATCHES.least[match >>> 24] + read(MATCHES.more[match >>> 24]);
      const count = LITERALS.least[literal >>> 24] + read(LITERALS.more[literal >>> 24]);
      if (left > 1) {
        literal = literals[(literal & 0xffff) + read((literal >> 16) & 255)];
        match = matches[(match & 0xffff) + read((match >> 16) & 255)];
        far = offsets[(far & 0xffff) + read((far >> 16) & 255)];
      }
      if (offset > 3) {
        offset -= 3;
        [third, second, recent] = [second, recent, offset];
      } else {
        const which = count === 0 ? offset : offset - 1;
        offset = which === 0 ? recent : which === 1 ? second : which === 2 ? third : recent - 1;
        if (which > 1) third = second;
        if (which > 0) [second, recent] = [recent, offset];
      }
      if (from + count > literalsEnd || filled + count + length > out.length) throw new Error("more than expected");
      if (count > LONG) out.set(source.subarray(from, from + count), filled);
      else for (let i = 0; i < count; i++) out[filled + i] = source[from + i];
      filled += count;
      from += count;
      if (offset < 1 || offset > filled - frame.start) throw new Error("a copy from before the beginning");
      repeat(out, filled, offset, length);
      filled += length;
    }
    if (place !== 0) throw new Error("sequences of another length");
    this.filled = filled;
    frame.recent = [recent, second, third];
    return from;
  }

  private copyLiterals(from: number, count: number): void {
    if (this.filled + count > this.out.length) throw new Error("more than expected");
    this.out.set(this.source.subarray(from, from + count), this.filled);
    this.filled += count;
  }
}

/** Write `length` bytes at `at`, which are those `offset` before them; they may overlap. */
function repeat(out: Bytes, at: number, offset: number, length: number): void {
  const from = at - offset;
  if (length <= LONG) {
    for (let i = 0; i < length; i++) out[at + i] = out[from + i];
    return;
  }
  if (offset >= length) {
    out.copyWithin(at, from, from + length);
    return;
  }
  let done = Math.max(offset, LONG - (LONG % offset)); // whole periods
  for (let i = 0; i < done && i < length; i++) out[at + i] = out[from + i];
  for (; done < length; done *= 2) out.copyWithin(at + done, at, at + Math.min(done, length - done));
}
