// Frames of Blosc 1 with Zstandard inside, as zarr's codec `blosc` writes them: blocks, perhaps split, perhaps shuffled.

import { UnreadError, unzstd } from "./codecs";
import { take } from "./memory";
import type { Bytes } from "./protocol";

const HEADER_BYTES = 16;
const SHUFFLE = 0x01;
const MEMCPYED = 0x02;
const BITSHUFFLE = 0x04;
const NOT_SPLIT = 0x10;
const ZSTD = 4;

/** Unpack one frame of `length` bytes. */
export function unblosc(frame: Bytes, length: number, where: string): Bytes {
  if (frame.length < HEADER_BYTES) throw new UnreadError(`${where}: ${frame.length} bytes, too short for a blosc frame`);
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const flags = frame[2];
  const typeSize = frame[3];
  const [size, blockSize, packed] = [4, 8, 12].map((at) => view.getUint32(at, true));
  if (size !== length || packed !== frame.length || (size > 0 && blockSize < 1)) {
    throw new UnreadError(`${where}: a blosc frame of ${size} bytes in ${packed}, expected ${length} in ${frame.length}`);
  }
  if (flags & MEMCPYED) return frame.slice(HEADER_BYTES, HEADER_BYTES + size);
  if (flags >> 5 !== ZSTD || flags & BITSHUFFLE) {
    throw new UnreadError(`${where}: this page reads blosc with zstd and bytes shuffled, flags are ${flags}`);
  }
  const data = take(size);
  for (let block = 0, start = 0; start < size; block++, start += blockSize) {
    const whole = Math.min(blockSize, size - start);
    const isSplit = !(flags & NOT_SPLIT) && whole === blockSize;
    const at = view.getUint32(HEADER_BYTES + 4 * block, true);
    const bytes = unpackBlock(frame, view, at, whole, isSplit ? typeSize : 1, where);
    if (flags & SHUFFLE && typeSize > 1) unshuffle(bytes, data.subarray(start, start + whole), typeSize);
    else data.set(bytes, start);
  }
  return data;
}

/** A block as its streams, each of them zstd, or stored as it is where that is no longer. */
function unpackBlock(frame: Bytes, view: DataView, start: number, size: number, streams: number, where: string): Bytes {
  const block = new Uint8Array(size);
  const part = size / streams;
  let at = start;
  for (let stream = 0; stream < streams; stream++) {
    const packed = at + 4 <= frame.length ? view.getInt32(at, true) : -1;
    at += 4;
    if (packed < 0 || at + packed > frame.length) throw new UnreadError(`${where}: a blosc frame that is cut short`);
    const bytes = frame.subarray(at, at + packed);
    const own = block.subarray(stream * part, (stream + 1) * part);
    if (packed === part) own.set(bytes);
    else unzstd(bytes, own, where);
    at += packed;
  }
  return block;
}

/** First bytes of all numbers, then second bytes ...: put them together again. What is left over lies at the end. */
function unshuffle(from: Bytes, to: Bytes, typeSize: number): void {
  const count = Math.floor(from.length / typeSize);
  for (let byte = 0; byte < typeSize; byte++) {
    const plane = byte * count;
    for (let i = 0; i < count; i++) to[i * typeSize + byte] = from[plane + i];
  }
  to.set(from.subarray(count * typeSize), count * typeSize);
}
