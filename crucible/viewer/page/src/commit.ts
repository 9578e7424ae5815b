// The commit of the run: read from zarr.json, asked again and again while the run goes on; the only one who knows it.

import type { ArrayMetadata, Located } from "./protocol";

export const ROOT = "trajectory.zarr";
const POLL_MS = 2000;

export interface Commit {
  key: string;
  runId: string;
  generation: number;
  /** Who wrote here, oldest first: each one's id, and the last step that stood when it came. */
  writers: [string, number][];
  /** Label of the last committed row. */
  lastStep: number;
  /** Position of the last committed row. */
  lastRow: number;
  completed: boolean;
  arrays: Record<string, ArrayMetadata>;
}

interface Group {
  attributes: Record<string, unknown>;
  consolidated_metadata?: { metadata?: Record<string, ArrayMetadata> };
}

/** Ask for the commit; null when there is none to be had. */
export async function fetchCommit(): Promise<Commit | null> {
  try {
    const response = await fetch(`${ROOT}/zarr.json`, { cache: "no-cache" });
    return response.ok ? parseCommit((await response.json()) as Group) : null;
  } catch {
    return null;
  }
}

function parseCommit(group: Group): Commit {
  const own = group.attributes;
  const arrays = group.consolidated_metadata?.metadata ?? {};
  const digests = (own.sha256 ?? {}) as Record<string, string>;
  return {
    key: String(own.sha256_of_this_file ?? ""),
    runId: String(own.run_id ?? digests["config.json"] ?? "").slice(0, 36),
    generation: Number(own.generation ?? 0),
    writers: (own.writers ?? []) as [string, number][],
    lastStep: Number(own.committed_steps ?? 0),
    lastRow: (arrays.step?.shape[0] ?? Number(own.committed_steps ?? 0) + 1) - 1,
    completed: Boolean(own.completed),
    arrays,
  };
}

/** Whether rows read under one commit still stand under the other, as far as both go. */
export function isSameRun(one: Commit, other: Commit): boolean {
  const same = one.runId === other.runId && one.generation === other.generation && other.lastRow >= one.lastRow;
  return same && !isFork(one, other);
}

/** Whether the other is of a copy of the run that went on by itself, from an earlier step than this one. */
function isFork(one: Commit, other: Commit): boolean {
  const came = other.writers.slice(one.writers.length);
  return one.writers.some(([id], i) => other.writers[i]?.[0] !== id) || came.some(([, after]) => after < one.lastStep);
}

/** An array at a commit, if the run keeps it at every step: a row of one with steps of its own is of another step. */
export function locate(commit: Commit, prefix: string, name: string): Located | null {
  for (const path of [prefix + name, name]) {
    const metadata = commit.arrays[path];
    if (!metadata || (metadata.dimension_names && metadata.dimension_names[0] !== "step")) continue;
    const writer = commit.writers.at(-1)?.[0];
    const tag = `run=${encodeURIComponent(commit.runId)}&g=${commit.generation}${writer ? `&w=${writer}` : ""}`;
    return { url: new URL(`${ROOT}/${path}`, document.baseURI).href, tag, metadata };
  }
  return null;
}

/** Calls back with every new commit, until `stop`; `now` asks at once. */
export class Poll {
  private timer = 0;
  private asking: Promise<Commit | null> | null = null;

  constructor(
    private last: Commit,
    private readonly onNew: (commit: Commit) => void,
    private readonly onTick: () => void,
  ) {}

  start(): void {
    this.timer = window.setTimeout(() => void this.tick(), POLL_MS);
  }

  stop(): void {
    window.clearTimeout(this.timer);
  }

  /** The commit as it is now; the same object as before if nothing changed. */
  async now(): Promise<Commit | null> {
    this.asking ??= fetchCommit();
    const found = await this.asking;
    this.asking = null;
    if (found && found.key !== this.last.key) {
      this.last = found;
      this.onNew(found);
    }
    return found;
  }

  private async tick(): Promise<void> {
    await this.now();
    this.onTick();
    if (this.last.completed) return;
    this.start();
  }
}
