// From the bytes of a chunk to its numbers: the codecs of an array's own metadata, undone in turn, each checked.

import { unblosc } from "./blosc";
import { take } from "./memory";
import type { Bytes, Codec, Numbers } from "./protocol";
import { unpack } from "./zstd";

/** A file that is missing, cut short, of another checksum, or not what the metadata says. */
export class UnreadError extends Error {}

const CRC_TABLES = crcTables();
const CRC_BYTES = 4;

function crcTables(): Uint32Array[] {
  const tables = [0, 1, 2, 3].map(() => new Uint32Array(256));
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
    tables[0][byte] = value;
  }
  for (let byte = 0; byte < 256; byte++) {
    for (let k = 1; k < 4; k++) {
      const before = tables[k - 1][byte];
      tables[k][byte] = (before >>> 8) ^ tables[0][before & 255];
    }
  }
  return tables;
}

/** CRC-32C (Castagnoli), four bytes at a time. */
export function crc32c(bytes: Uint8Array): number {
  const [one, two, three, four] = CRC_TABLES;
  let crc = 0xffffffff;
  const whole = bytes.length & ~3;
  let at = 0;
  while (at < whole) {
    crc ^= bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    crc = four[crc & 255] ^ three[(crc >>> 8) & 255] ^ two[(crc >>> 16) & 255] ^ one[crc >>> 24];
    at += 4;
  }
  while (at < bytes.length) crc = one[(crc ^ bytes[at++]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** The bytes before the checksum at their end, which must match them. */
export function withoutCrc(bytes: Bytes, where: string): Bytes {
  if (bytes.length < CRC_BYTES) throw new UnreadError(`${where}: ${bytes.length} bytes, too short for a checksum`);
  const end = bytes.length - CRC_BYTES;
  const wanted = new DataView(bytes.buffer, bytes.byteOffset + end, CRC_BYTES).getUint32(0, true);
  const body = bytes.subarray(0, end);
  if (crc32c(body) !== wanted) throw new UnreadError(`${where}: its bytes do not match their checksum`);
  return body;
}

/** Undo the codecs that turn bytes into bytes, the last one first, down to `length` bytes of numbers. */
export function decodeBytes(bytes: Bytes, codecs: Codec[], length: number, where: string): Bytes {
  let data = bytes;
  for (const codec of [...codecs].reverse()) {
    if (codec.name === "crc32c") data = withoutCrc(data, where);
    else if (codec.name === "zstd" || codec.name === "numcodecs.zstd") data = unzstd(data, take(length), where);
    else if (codec.name === "blosc") data = unblosc(data, length, where);
    else throw new UnreadError(`${where}: this page cannot undo the codec ${codec.name}`);
  }
  if (data.length !== length) throw new UnreadError(`${where}: ${data.length} bytes unpacked, expected ${length}`);
  return data.buffer === bytes.buffer ? data.slice() : data; // a chunk is given back, the file it came from is not
}

/** Unpack Zstandard into memory that it must fill. */
export function unzstd(bytes: Bytes, out: Bytes, where: string): Bytes {
  try {
    unpack(bytes, out);
  } catch (error) {
    throw new UnreadError(`${where}: cannot be unpacked (${error instanceof Error ? error.message : String(error)})`);
  }
  return out;
}

type Maker = { new (buffer: ArrayBuffer, offset: number, length: number): Numbers; BYTES_PER_ELEMENT: number };

/** float16 stays as its bits. */
const MAKERS: Record<string, Maker> = {
  bool: Uint8Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  float16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  float32: Float32Array,
  float64: Float64Array,
};

export function itemBytes(dataType: string): number {
  return maker(dataType).BYTES_PER_ELEMENT;
}

/** Bytes as numbers; copied where they do not lie at a multiple of the number's size. */
export function asNumbers(bytes: Bytes, dataType: string): Numbers {
  const make = maker(dataType);
  const aligned = bytes.byteOffset % make.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return new make(aligned.buffer, aligned.byteOffset, aligned.byteLength / make.BYTES_PER_ELEMENT);
}

function maker(dataType: string): Maker {
  const found = MAKERS[dataType];
  if (!found) throw new UnreadError(`numbers of the type ${dataType} are not known to this page`);
  return found;
}
