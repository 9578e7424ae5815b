// Positions by slices of steps: the one that is shown, its neighbours in advance, and as many others as there is room for.

import { CalledOff, type Hand } from "./pool";
import { join } from "./joining";
import { giveBack } from "./memory";
import type { Located, Positions, PositionsJob } from "./protocol";
import { innerShape, Slices } from "./slices";

const MOST_BYTES = 18 << 20;

/** What is told of the blocks that were asked for. */
interface Telling {
  arrived: () => void;
  /** How much of the block that is shown is decoded; null when it is, or could not be. */
  progress: (share: number | null) => void;
  failed: (error: Error) => void;
}

export class Blocks {
  private readonly cache = new Map<number, Positions>();
  private readonly failed = new Set<number>();
  private wanted = -1;
  private running: { slice: number; callOff: () => void } | null = null;
  /** Counts resets: what was asked before one is not kept. */
  private era = 0;

  private weights: Located | null = null;
  private slices: Slices | null = null;
  private axes: number[][] = [];
  private readonly stale = new Set<number>();
  /** Memory that the workers fill, sent to and fro. */
  private rooms: (ArrayBuffer | null)[] = [];

  constructor(
    private readonly hands: Hand[],
    private readonly tell: Telling,
  ) {}

  /** The slice of a step, if it is here; it counts as used. */
  at(step: number): Positions | undefined {
    const slice = this.slices?.of(step) ?? -1;
    const found = this.cache.get(slice);
    if (found) {
      this.cache.delete(slice);
      this.cache.set(slice, found);
    }
    return found && step < found.first + found.rows ? found : undefined;
  }

  /** Look without counting it as used. */
  peek(step: number): Positions | undefined {
    return this.slices ? this.cache.get(this.slices.of(step)) : undefined;
  }

  /** Fetch the slice of this step, and then those beside it. */
  want(step: number): void {
    this.wanted = this.slices?.of(step) ?? -1;
    const running = this.running;
    if (running && running.slice !== this.wanted && !this.cache.has(this.wanted)) running.callOff();
    this.proceed();
  }

  /** A later commit of the same run: whole blocks stay, what has grown is dropped. */
  grow(weights: Located): void {
    this.slices = new Slices(weights);
    for (const [slice, held] of this.cache) {
      if (held.rows < this.slices.rowsOf(slice)) this.stale.add(slice);
    }
    this.weights = weights;
    this.failed.clear();
    this.proceed();
  }

  /** Another run, generation or axes: nothing stays. */
  reset(weights: Located, axes: number[][]): void {
    this.era++;
    this.running?.callOff();
    this.running = null;
    this.cache.clear();
    this.failed.clear();
    this.stale.clear();
    this.slices = new Slices(weights);
    this.weights = weights;
    this.axes = axes;
    this.proceed();
  }

  retry(): void {
    this.failed.clear();
    this.proceed();
  }

  private proceed(): void {
    if (this.running || this.wanted < 0) return;
    const count = this.slices?.count ?? 0;
    const next = [this.wanted, this.wanted + 1, this.wanted - 1].find(
      (slice) => slice >= 0 && slice < count && (!this.cache.has(slice) || this.stale.has(slice)) && !this.failed.has(slice),
    );
    if (next !== undefined) void this.fetch(next);
  }

  private async fetch(slice: number): Promise<void> {
    const era = this.era;
    const isShown = slice === this.wanted;
    const asked = this.ask(slice, (share) => isShown && this.tell.progress(share));
    this.running = { slice, callOff: asked.callOff };
    try {
      const found = await asked.done;
      if (era !== this.era) return;
      this.keep(slice, found);
      this.running = null;
      if (isShown) this.tell.progress(null);
      this.tell.arrived();
    } catch (error) {
      if (era !== this.era) return;
      this.running = null;
      if (!(error instanceof CalledOff)) {
        this.failed.add(slice);
        if (isShown) this.tell.progress(null);
        if (isShown) this.tell.failed(error as Error);
      }
    }
    this.proceed();
  }

  /** The positions of a slice: each worker reckons its part of the tokens. */
  private ask(slice: number, progress: (share: number) => void): { callOff: () => void; done: Promise<Positions> } {
    const weights = this.weights!;
    const { block, rows } = this.slices!.span(slice);
    const { hands, parts, inOneFile } = this.divide(weights);
    const shares = parts.map(() => 0);
    const ids: number[] = [];
    let isOff = false;
    const send = async (): Promise<Positions> => {
      const found = inOneFile ? await hands[0].ask<"file">({ kind: "file", array: weights, block }).done : null;
      if (isOff) throw new CalledOff("called off");
      const asked = parts.map((tiles, i) => {
        const file = found && i < parts.length - 1 ? found.slice() : found;
        const room = this.rooms[i] ?? null;
        this.rooms[i] = null;
        const told = (share: number): void => {
          shares[i] = share;
          progress(shares.reduce((sum, each) => sum + each) / parts.length);
        };
        const job: PositionsJob = { kind: "positions", weights, block, rows, tiles, file, axes: this.axes, room };
        return hands[i].ask<"positions">(job, told, [file?.buffer, room].filter((buffer) => buffer instanceof ArrayBuffer));
      });
      ids.push(...asked.map(({ id }) => id));
      const placed = await Promise.all(asked.map(({ done }) => done));
      const joined = join(placed);
      this.rooms = placed.map((part) => part.x.buffer);
      return joined;
    };
    const callOff = (): void => {
      isOff = true;
      ids.forEach((id, i) => hands[i].callOff(id));
    };
    return { callOff, done: send() };
  }

  /** Which tiles go to which worker: no file to two of them, unless there is only one. */
  private divide(weights: Located): { hands: Hand[]; parts: [number, number][]; inOneFile: boolean } {
    const { shape, chunk_grid: grid } = weights.metadata;
    const inFile = grid.configuration.chunk_shape[1] / innerShape(weights)[1];
    const tiles = Math.ceil(shape[1] / innerShape(weights)[1]);
    const inOneFile = inFile > 1 && tiles > 1 && tiles <= inFile;
    const unit = inOneFile ? 1 : inFile;
    const units = Math.ceil(tiles / unit);
    const hands = this.hands.slice(0, Math.max(1, units));
    const ends = hands.map((_, i) => unit * Math.round(((i + 1) * units) / hands.length));
    return { hands, parts: ends.map((end, i) => [i ? ends[i - 1] : 0, end]), inOneFile };
  }

  private keep(slice: number, found: Positions): void {
    this.stale.delete(slice);
    this.cache.delete(slice);
    this.cache.set(slice, found);
    let bytes = 0;
    for (const held of this.cache.values()) bytes += 12 * held.x.length;
    for (const [other, held] of this.cache) {
      if (bytes <= MOST_BYTES) break;
      if (other === this.wanted || other === slice) continue;
      this.cache.delete(other);
      bytes -= 12 * held.x.length;
      for (const axis of [held.x, held.y, held.z]) giveBack(axis.buffer);
    }
  }
}
