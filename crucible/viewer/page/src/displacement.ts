// How far tokens move in a step, in lattice cells, from the bits of their weights: as analysis/lattice.py has it.

import { BFLOAT16, FLOAT16, FLOAT32, layoutOf, tableOf, type Bits, type BitLayout } from "./floats";
import type { ArrayMetadata, Norm } from "./protocol";

interface Cells {
  /** A cell of the power of two below a weight. */
  part: number;
  smallest: number;
  largest: number;
}

const CELLS = new Map<BitLayout, Cells>([
  [BFLOAT16, { part: 2 ** -7, smallest: 2 ** -133, largest: 2 ** 121 }],
  [FLOAT16, { part: 2 ** -10, smallest: 2 ** -24, largest: 2 ** 6 }],
  [FLOAT32, { part: 2 ** -23, smallest: 2 ** -149, largest: 2 ** 105 }],
]);

const number = new Float32Array(1);
const bits = new Uint32Array(number.buffer);

/** (after - before) / u(before) in float32. */
function displacement(before: number, after: number, { part, smallest, largest }: Cells): number {
  number[0] = before;
  bits[0] &= 0x7f800000;
  const cell = Math.min(Math.max(number[0] * part, smallest), largest);
  return Math.fround(Math.fround(after - before) / cell);
}

/** The number that float32 bits stand for. */
function float32(value: number): number {
  bits[0] = value;
  return number[0];
}

/** The bfloat16 that is nearest to float32 bits, the even one of two, as a number. */
function rounded(value: number): number {
  bits[0] = value;
  if ((value & 0x7fffffff) <= 0x7f800000) bits[0] = (value + 0x7fff + ((value >>> 16) & 1)) & 0xffff0000;
  return number[0];
}

/** Any change of a finite weight is a move of at least so many cells. */
const SURE = 0.5;

/** Adds up the norm of the move of one token at each row of a block, weight by weight. */
export class Norms {
  private readonly cells: Cells;
  private readonly numberOf: (value: number) => number;
  private readonly size: number;
  /** Bits without their sign from which on a weight is infinite or NaN. */
  private readonly strange: number;
  private readonly sums: Float64Array;

  constructor(
    metadata: ArrayMetadata,
    isProjected: boolean,
    private readonly norm: Norm,
    /** The smallest norm that is motion. */
    private readonly least: number,
    rows: number,
  ) {
    const layout = layoutOf(metadata);
    const table = tableOf(layout);
    this.cells = CELLS.get(isProjected ? BFLOAT16 : layout)!;
    this.numberOf = isProjected ? rounded : table ? (value) => table[value] : float32;
    this.size = layout === FLOAT32 ? 0x7fffffff : 0x7fff;
    this.strange = isProjected ? 0x7f7f8000 : layout === FLOAT32 ? 0x7f800000 : layout === FLOAT16 ? 0x7c00 : 0x7f80;
    this.sums = new Float64Array(rows);
  }

  /** Begin with another token. */
  clear(): void {
    this.sums.fill(0);
  }

  /** A weight from row to row, `stride` apart in memory from `at` on; returns the last of its bits. */
  add(values: Bits, at: number, stride: number, before: number): number {
    const { sums, size, strange } = this;
    let was = before;
    for (let row = 0; row < sums.length; row++, at += stride) {
      const is = values[at];
      if (is !== was) this.addMove(row, was, is);
      else if ((is & size) >= strange) sums[row] = NaN;
      was = is;
    }
    return was;
  }

  private addMove(row: number, was: number, is: number): void {
    if (this.least <= SURE && (was & this.size) < this.strange && (is & this.size) < this.strange) {
      if (this.numberOf(was) !== this.numberOf(is)) this.sums[row] += 1; // how far is the same
      return;
    }
    const d = Math.abs(displacement(this.numberOf(was), this.numberOf(is), this.cells));
    if (this.norm !== "linf") this.sums[row] += this.norm === "l1" ? d : d * d;
    else this.sums[row] = Math.max(this.sums[row], d); // NaN stays NaN
  }

  /** Whether the token moved at a row; a move that is NaN is none. */
  isMotion(row: number): boolean {
    const sum = this.sums[row];
    return Math.fround(this.norm === "l2" ? Math.sqrt(sum) : sum) >= this.least;
  }
}
