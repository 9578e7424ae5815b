// What is known of all steps: who moved, the loss, the way of the centroid; and the bits of the chosen token.

import type { Hand } from "./pool";
import { countsOf } from "./counting";
import type { Located, Motion, MotionSource, Raster, TokenBits, Whole } from "./protocol";
import { innerRows } from "./slices";

const MOST_MOTION_BYTES = 32 << 20;

/** The steps of motion that are asked for at the same time. */
const LANES = 3;

export type Change = "motion" | "loss" | "centroid" | "raster" | "token" | "whole";

export class Record {
  /** Tokens that moved at each step; -1 where that is not known yet. */
  counts = new Int32Array(0);
  loss: Float32Array | null = null;
  centroid: { values: Float32Array; hidden: number } | null = null;
  raster: Raster | null = null;
  private readonly motions = new Map<number, Motion>();
  private bytes = 0;
  private token: { key: string; bits: TokenBits } | null = null;
  private source: MotionSource = { norm: null, weights: null, threshold: 0.1, by: "l2", isProjected: false };
  /** Counts readings: an older one stops. */
  private era = 0;
  /** Who is counted, by bits as in `Motion`; null for everyone. */
  private counted: Uint8Array | null = null;
  /** Counts resets: what was asked before one is not kept. */
  private life = 0;
  private readonly asked = new Map<number, Promise<void>>();
  private tokenAsked = "";

  constructor(
    private readonly hand: Hand,
    private readonly onChange: (what: Change) => void,
    private readonly onFailure: (error: Error) => void,
  ) {}

  /** Begin anew: another run or generation. */
  reset(): void {
    this.era++;
    this.life++;
    this.asked.clear();
    this.counts = new Int32Array(0);
    this.loss = this.centroid = this.raster = this.token = null;
    this.motions.clear();
    this.bytes = 0;
    this.tokenAsked = "";
    void this.hand.ask<"forget">({ kind: "forget" });
  }

  /** Read what a commit has beyond what is known; `near` is the step whose block comes first. */
  async read(source: MotionSource, loss: Located | null, centroid: Located | null, near: number): Promise<void> {
    const era = ++this.era;
    this.source = source;
    const array = source.norm ?? source.weights;
    try {
      if (array) this.grow(array.metadata.shape[0]);
      await Promise.all([this.readScalars(loss, centroid, era), array ? this.readMotion(array, near, era) : null]);
      if (era === this.era) this.onChange("whole");
    } catch (error) {
      if (era === this.era) this.onFailure(error as Error);
    }
  }

  /** Count these tokens alone, of so many; null for all. */
  show(tokens: number[] | null, all: number): void {
    this.counted = tokens && new Uint8Array((all + 7) >> 3);
    for (const token of tokens ?? []) this.counted![token >> 3] |= 1 << (token & 7);
  }

  private grow(rows: number): void {
    const counts = new Int32Array(rows).fill(-1);
    counts.set(this.counts.subarray(0, rows));
    this.counts = counts;
  }

  private async readMotion(array: Located, near: number, era: number): Promise<void> {
    const size = innerRows(array);
    const count = Math.ceil(array.metadata.shape[0] / size);
    const first = Math.min(count - 1, Math.floor(near / size));
    const left = [first, ...Array(count).keys()].filter((block, i) => i === 0 || block !== first).reverse();
    const lane = async (): Promise<void> => {
      for (let block = left.pop(); block !== undefined && era === this.era; block = left.pop()) {
        const end = Math.min(array.metadata.shape[0], (block + 1) * size);
        if (this.counts.subarray(block * size, end).indexOf(-1) < 0) continue;
        await this.fetchMotion(block);
        if (era === this.era) this.onChange("motion");
      }
    };
    // From weights each block needs the one before, which the worker has if they come one by one.
    await Promise.all(Array.from({ length: this.source.norm ? LANES : 1 }, lane));
  }

  /** The motion of a block, asked for once at a time. */
  private fetchMotion(block: number): Promise<void> {
    const known = this.asked.get(block);
    if (known) return known;
    const asked = this.askMotion(block).finally(() => {
      if (this.asked.get(block) === asked) this.asked.delete(block);
    });
    this.asked.set(block, asked);
    return asked;
  }

  private async askMotion(block: number): Promise<void> {
    const life = this.life;
    const found = await this.hand.ask<"motion">({ kind: "motion", source: this.source, block }).done;
    if (life !== this.life || found.first >= this.counts.length) return;
    const counts = this.counted ? countsOf(found, this.counted) : found.counts;
    this.counts.set(counts.subarray(0, Math.max(0, this.counts.length - found.first)), found.first);
    this.bytes += found.bits.length - (this.motions.get(block)?.bits.length ?? 0);
    this.motions.delete(block);
    this.motions.set(block, found);
    for (const [other, held] of this.motions) {
      if (this.bytes <= MOST_MOTION_BYTES || other === block) break;
      this.motions.delete(other);
      this.bytes -= held.bits.length;
    }
  }

  private async readScalars(loss: Located | null, centroid: Located | null, era: number): Promise<void> {
    for (const [name, array] of [["loss", loss], ["centroid", centroid]] as const) {
      if (!array) continue;
      const whole: Whole = await this.hand.ask<"read">({ kind: "read", array }).done;
      if (era !== this.era) return;
      const values = whole.values as Float32Array;
      if (name === "loss") this.loss = values;
      else this.centroid = { values, hidden: whole.shape[1] };
      this.onChange(name);
    }
  }

  /** Whether the motion of every step is known. */
  get isWhole(): boolean {
    return this.counts.length > 0 && this.counts.indexOf(-1) < 0;
  }

  /** Who moved at the steps about this one, or null while that is not known. */
  motionAt(step: number): Motion | null {
    const array = this.source.norm ?? this.source.weights;
    if (!array || step >= this.counts.length) return null;
    if (this.counts[step] < 0) return null;
    const block = Math.floor(step / innerRows(array));
    const motion = this.motions.get(block);
    if (!motion || step >= motion.first + motion.rows) {
      if (!this.asked.has(block)) void this.fetchMotion(block).then(() => this.onChange("motion"), this.onFailure);
      return null;
    }
    return motion;
  }

  /** The step with motion before (-1) or after (+1) this one; null if there is none. */
  motionFrom(step: number, direction: 1 | -1): number | null {
    for (let at = step + direction; at >= 0 && at < this.counts.length; at += direction) if (this.counts[at] > 0) return at;
    return null;
  }

  async readRaster(rowOfToken: Int32Array, rows: number, columns: number, from: number, to: number): Promise<void> {
    const job = { kind: "raster" as const, source: this.source, rowOfToken, rows, columns, from, to };
    try {
      this.raster = await this.hand.ask<"raster">(job).done;
      this.onChange("raster");
    } catch (error) {
      this.onFailure(error as Error);
    }
  }

  /** The bits of a token at a step and at the step before (null at step 0); undefined while they are not here. */
  bitsOf(weights: Located, token: number, step: number): { now: number[]; before: number[] | null } | undefined {
    if (step >= weights.metadata.shape[0]) return undefined; // the run was cut, and its view is on the way
    const size = innerRows(weights);
    const block = Math.floor(step / size);
    const key = this.keyOf(weights, token, block);
    if (this.token?.key !== key) {
      if (this.tokenAsked !== key) void this.readToken(weights, token, block, key);
      return undefined;
    }
    const { bits } = this.token;
    const row = step - block * size + this.extra;
    const at = (r: number): number[] => Array.from({ length: bits.hidden }, (_, j) => bits.bits[j * bits.rows + r]);
    return { now: at(row), before: row > 0 ? at(row - 1) : null };
  }
  /** Rows in front that belong to the block before. */
  private extra = 0;

  private keyOf(weights: Located, token: number, block: number): string {
    const size = innerRows(weights);
    return `${weights.tag} ${token} ${block} ${Math.min(size, weights.metadata.shape[0] - block * size)}`;
  }

  /** A block of one token, with the last row of the block before it in front: the first flips come from there. */
  private async readToken(weights: Located, token: number, block: number, key: string): Promise<void> {
    this.tokenAsked = key;
    try {
      const ask = (b: number): Promise<TokenBits> => this.hand.ask<"token">({ kind: "token", weights, block: b, token }).done;
      const [before, own] = await Promise.all([block > 0 ? ask(block - 1) : null, ask(block)]);
      const joined = before ? joinRows(before, own) : own;
      if (this.tokenAsked !== key) return;
      this.extra = before ? 1 : 0;
      this.token = { key, bits: joined };
      this.onChange("token");
    } catch (error) {
      if (this.tokenAsked === key) this.tokenAsked = "";
      this.onFailure(error as Error);
    }
  }
}

function joinRows(before: TokenBits, own: TokenBits): TokenBits {
  const rows = own.rows + 1;
  const bits = own.bits.BYTES_PER_ELEMENT === 2 ? new Uint16Array(rows * own.hidden) : new Uint32Array(rows * own.hidden);
  for (let j = 0; j < own.hidden; j++) {
    bits[j * rows] = before.bits[(j + 1) * before.rows - 1];
    bits.set(own.bits.subarray(j * own.rows, (j + 1) * own.rows), j * rows + 1);
  }
  return { first: own.first - 1, rows, hidden: own.hidden, bits };
}
