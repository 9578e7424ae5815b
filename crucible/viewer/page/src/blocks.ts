// Blocks of positions: the one that is shown, its neighbours in advance, and as many others as there is room for.

import { CalledOff, type Hand } from "./pool";
import { join } from "./joining";
import type { Located, Positions, PositionsJob } from "./protocol";

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
  private running: { block: number; callOff: () => void } | null = null;
  /** Counts resets: what was asked before one is not kept. */
  private era = 0;

  private weights: Located | null = null;
  private axes: number[][] = [];
  private readonly stale = new Set<number>();

  constructor(
    private readonly hands: Hand[],
    private readonly tell: Telling,
  ) {}

  get blockRows(): number {
    return this.weights ? innerRows(this.weights) : 1;
  }

  private get count(): number {
    return this.weights ? Math.ceil(this.weights.metadata.shape[0] / this.blockRows) : 0;
  }

  /** The block of a step, if it is here; it counts as used. */
  at(step: number): Positions | undefined {
    const block = Math.floor(step / this.blockRows);
    const found = this.cache.get(block);
    if (found) {
      this.cache.delete(block);
      this.cache.set(block, found);
    }
    return found && step < found.first + found.rows ? found : undefined;
  }

  /** Look without counting it as used. */
  peek(step: number): Positions | undefined {
    return this.cache.get(Math.floor(step / this.blockRows));
  }

  /** Fetch the block of this step, and then those beside it. */
  want(step: number): void {
    this.wanted = Math.floor(step / this.blockRows);
    const running = this.running;
    if (running && running.block !== this.wanted && !this.cache.has(this.wanted)) running.callOff();
    this.proceed();
  }

  /** A later commit of the same run: whole blocks stay, what has grown is dropped. */
  grow(weights: Located): void {
    const rows = weights.metadata.shape[0];
    for (const [block, held] of this.cache) {
      if (held.rows < Math.min(this.blockRows, rows - held.first)) this.stale.add(block);
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
    const next = [this.wanted, this.wanted + 1, this.wanted - 1].find(
      (block) => block >= 0 && block < this.count && (!this.cache.has(block) || this.stale.has(block)) && !this.failed.has(block),
    );
    if (next !== undefined) void this.fetch(next);
  }

  private async fetch(block: number): Promise<void> {
    const era = this.era;
    const isShown = block === this.wanted;
    const asked = this.ask(block, (share) => isShown && this.tell.progress(share));
    this.running = { block, callOff: asked.callOff };
    try {
      const found = await asked.done;
      if (era !== this.era) return;
      this.keep(block, found);
      this.running = null;
      if (isShown) this.tell.progress(null);
      this.tell.arrived();
    } catch (error) {
      if (era !== this.era) return;
      this.running = null;
      if (!(error instanceof CalledOff)) {
        this.failed.add(block);
        if (isShown) this.tell.progress(null);
        if (isShown) this.tell.failed(error as Error);
      }
    }
    this.proceed();
  }

  /** The positions of a block: each worker reckons its part of the tokens. */
  private ask(block: number, progress: (share: number) => void): { callOff: () => void; done: Promise<Positions> } {
    const weights = this.weights!;
    const { hands, parts, inOneFile } = this.divide(weights);
    const shares = parts.map(() => 0);
    const ids: number[] = [];
    let isOff = false;
    const send = async (): Promise<Positions> => {
      const file = inOneFile ? await hands[0].ask<"file">({ kind: "file", array: weights, block }).done : null;
      if (isOff) throw new CalledOff("called off");
      const asked = parts.map((tiles, i) => {
        const job: PositionsJob = { kind: "positions", weights, block, tiles, file, axes: this.axes };
        return hands[i].ask<"positions">(job, (share) => {
          shares[i] = share;
          progress(shares.reduce((sum, each) => sum + each) / parts.length);
        });
      });
      ids.push(...asked.map(({ id }) => id));
      return join(await Promise.all(asked.map(({ done }) => done)));
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

  private keep(block: number, found: Positions): void {
    this.stale.delete(block);
    this.cache.delete(block);
    this.cache.set(block, found);
    let bytes = 0;
    for (const held of this.cache.values()) bytes += 12 * held.x.length;
    for (const [other, held] of this.cache) {
      if (bytes <= MOST_BYTES) break;
      if (other === this.wanted || other === block) continue;
      this.cache.delete(other);
      bytes -= 12 * held.x.length;
    }
  }
}

/** Steps of a chunk: within a shard, if there are shards. */
export function innerRows(array: Located): number {
  return innerShape(array)[0];
}

function innerShape(array: Located): number[] {
  const sharding = array.metadata.codecs.find((codec) => codec.name === "sharding_indexed");
  return sharding ? (sharding.configuration!.chunk_shape as number[]) : array.metadata.chunk_grid.configuration.chunk_shape;
}
