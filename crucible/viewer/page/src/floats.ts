// Weights as bits and as numbers: bfloat16 and float16 in 16 bits, float32 in 32.

import type { ArrayMetadata, Numbers } from "./protocol";

/** How the bits of a weight are divided: sign, exponent, mantissa. */
export interface BitLayout {
  exponent: number;
  mantissa: number;
}

export const BFLOAT16: BitLayout = { exponent: 8, mantissa: 7 };
export const FLOAT16: BitLayout = { exponent: 5, mantissa: 10 };
export const FLOAT32: BitLayout = { exponent: 8, mantissa: 23 };

export function bitCount(layout: BitLayout): number {
  return 1 + layout.exponent + layout.mantissa;
}

/** The layout of an array of weights: integers say in `bits_of` whose bits they are. */
export function layoutOf(metadata: ArrayMetadata): BitLayout {
  if (metadata.data_type === "float32") return FLOAT32;
  return metadata.data_type === "float16" ? FLOAT16 : BFLOAT16;
}

export type Bits = Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** The same memory as bit patterns. */
export function asBits(values: Numbers): Bits {
  return values.BYTES_PER_ELEMENT === 2
    ? new Uint16Array(values.buffer, values.byteOffset, values.length)
    : new Uint32Array(values.buffer, values.byteOffset, values.length);
}

/** All numbers of a 16-bit layout by their bits; null for float32, whose memory holds the numbers as they are. */
export function tableOf(layout: BitLayout): Float32Array | null {
  if (layout === FLOAT32) return null;
  return layout === BFLOAT16 ? bfloat16Table() : float16Table();
}

let bfloat16: Float32Array | null = null;

/** All 65,536 numbers of bfloat16: its bits are the upper half of a float32's. */
function bfloat16Table(): Float32Array {
  bfloat16 ??= new Float32Array(Uint32Array.from({ length: 65536 }, (_, bits) => bits << 16).buffer);
  return bfloat16;
}

let float16: Float32Array | null = null;

function float16Table(): Float32Array {
  float16 ??= Float32Array.from({ length: 65536 }, (_, bits) => {
    const exponent = (bits >> 10) & 31;
    const mantissa = bits & 1023;
    const size =
      exponent === 31 ? (mantissa ? NaN : Infinity) : exponent ? (1 + mantissa / 1024) * 2 ** (exponent - 15) : mantissa * 2 ** -24;
    return bits & 0x8000 ? -size : size;
  });
  return float16;
}
