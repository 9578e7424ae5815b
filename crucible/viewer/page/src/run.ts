// The run as the page knows it: commit, view, what was read so far; and what happens when the run goes on.

import { Blocks } from "./blocks";
import { isSameRun, locate, Poll, type Commit } from "./commit";
import * as text from "./page";
import { Hand, Unread } from "./pool";
import type { Located } from "./protocol";
import { Record, type Change } from "./record";
import { fetchStatus, fetchView, freezeOrder, type Cloud, type Status, type View } from "./view";

const VIEW_AGAIN_MS = 500;
const RETRY_MS = 400;

/** Who shows the run: told what happens to it. */
export interface Shower {
  /** The row that is shown: what belongs to it is read first. */
  step: number;
  /** Something that is drawn is new. */
  changed(what: Change | "positions" | "status"): void;
  /** There are more rows. */
  grown(): void;
  /** It is another run, or it was cut: begin anew. */
  restarted(): void;
  /** There are other answers. */
  viewed(): void;
  /** How much of the block that is waited for is decoded; null for nothing. */
  progress(share: number | null): void;
}

export class Run {
  status: Status = { state: "complete", command: null };
  /** Positions of the tokens that are shown, the first to freeze in front; and the place of each in that order, or -1. */
  order = new Int32Array(0);
  rank = new Int32Array(0);
  /** The axes that are drawn: those of the first view, until they are refitted. */
  cloud: Cloud | null;
  blocks: Blocks | null = null;
  readonly record: Record;
  private readonly poll: Poll;
  private failures = 0;
  private hasPicture = false;

  constructor(
    private commit: Commit,
    public view: View,
    private readonly near: Hand,
    private readonly far: Hand,
    private readonly shower: Shower,
  ) {
    this.cloud = view.cloud;
    this.record = new Record(far, (what) => shower.changed(what), (error) => void this.onFailure(error));
    this.poll = new Poll(commit, (next) => this.onCommit(next), () => void this.readStatus());
    this.setOrder();
  }

  begin(): void {
    this.makeBlocks();
    if (!this.blocks) this.readRecord(); // else the first picture comes first
    this.setView(this.view);
    void this.readStatus();
    if (this.goesOn) this.poll.start();
    else if (!this.view.state) document.addEventListener("visibilitychange", () => void (document.hidden || this.poll.now())); // it may be replaced
    if (this.view.commit.key !== this.commit.key || !(this.view.answers ?? this.view.problem)) void this.readView();
  }

  /** Position of the last row; rows begin at 0, and have the labels of `view.labels`. */
  get lastRow(): number {
    return this.commit.lastRow;
  }

  /** Positions of the first and the last row that are shown. */
  get shown(): [number, number] {
    const [first, last] = this.view.selection?.rows ?? [0, null];
    return [Math.min(first, this.lastRow), Math.min(last ?? this.lastRow, this.lastRow)];
  }

  isShown(token: number): boolean {
    return this.rank[token] >= 0;
  }

  /** Whether there may be another commit; a published copy has none. */
  get goesOn(): boolean {
    return !this.commit.completed && !this.view.state;
  }

  weights(): Located | null {
    const found = locate(this.commit, this.view.prefix, "W");
    return found && found.metadata.shape.length === 3 ? found : null;
  }

  /** The axes of the newest view in place of those that were kept. */
  refit(): void {
    const weights = this.weights();
    this.cloud = this.view.cloud;
    if (!weights || !this.cloud || !this.blocks) return;
    this.blocks.reset(weights, this.cloud.axes);
    this.blocks.want(this.shower.step);
  }

  private makeBlocks(): void {
    const weights = this.weights();
    if (!weights || !this.cloud) {
      this.blocks = null;
      return;
    }
    this.blocks ??= new Blocks([this.near, this.far], {
      arrived: () => this.arrived(),
      progress: (share) => this.shower.progress(share),
      failed: (error) => void this.onFailure(error),
    });
    this.blocks.reset(weights, this.cloud.axes);
    this.blocks.want(this.shower.step);
  }

  private arrived(): void {
    if (!this.hasPicture) this.readRecord();
    this.shower.changed("positions");
  }

  private readRecord(): void {
    this.hasPicture = true;
    const { norm, threshold, prefix, projected } = this.view;
    const of = (name: string): Located | null => locate(this.commit, prefix, name);
    const source = { norm: of(`displacement_${norm}`), weights: this.weights(), threshold, by: norm, isProjected: projected };
    this.record.show(this.view.selection?.tokens ?? null, this.view.tokens);
    void this.record.read(source, of("loss"), of("centroid"), this.shower.step);
  }

  private onCommit(next: Commit): void {
    const before = this.commit;
    this.commit = next;
    this.failures = 0;
    text.writeProblem(null);
    if (!isSameRun(before, next)) {
      void this.beginAgain();
      return;
    }
    const weights = this.weights();
    if (weights) this.blocks?.grow(weights);
    this.readRecord();
    this.shower.grown();
    void this.readView();
  }

  /** Another run, or one that was cut or compacted: nothing that was read stands any more. */
  private async beginAgain(): Promise<void> {
    this.record.reset();
    await this.readView(true);
    this.cloud = this.view.cloud;
    this.shower.restarted();
    this.makeBlocks();
    this.readRecord();
    this.poll.start();
  }

  /** Ask for the view until it is that of the commit; `first` is content with one that has no answers yet. */
  private async readView(first = false): Promise<void> {
    const wanted = this.commit.key;
    while (this.commit.key === wanted) {
      try {
        const view = await fetchView();
        if (this.commit.key !== wanted) return;
        const isOfCommit = view.commit.key === wanted;
        if (isOfCommit || (view.answers && !first)) this.setView(view);
        const isDone = Boolean(view.answers ?? view.problem);
        if (isOfCommit && !isDone && first) void this.readView();
        if (isOfCommit && (isDone || first)) return;
      } catch (error) {
        text.writeProblem(error instanceof Error ? error.message : String(error));
        if (!first) return;
      }
      await new Promise((resolve) => setTimeout(resolve, VIEW_AGAIN_MS));
    }
  }

  private setView(view: View): void {
    this.view = view;
    this.setOrder();
    text.writeHeader(view, this.lastRow, this.shown);
    text.writeVerdict(view);
    if (view.problem) text.writeProblem(view.problem);
    this.shower.viewed();
  }

  private setOrder(): void {
    this.order = freezeOrder(this.view.answers, this.view);
    this.rank = new Int32Array(this.view.tokens).fill(-1);
    this.order.forEach((token, at) => (this.rank[token] = at));
  }

  private async readStatus(): Promise<void> {
    this.status = await fetchStatus(this.view);
    text.writeStatus(this.status);
    this.shower.changed("status");
  }

  /** A file could not be read: perhaps the run was cut, compacted or grew. Only what stays so is damage. */
  private async onFailure(error: Error): Promise<void> {
    if (!(error instanceof Unread)) {
      text.writeProblem(`The page met an error of its own: ${error.message}`);
      return;
    }
    const before = this.commit;
    const now = await this.poll.now();
    if (now === null) {
      text.writeProblem("The server does not answer. Start it again with crucible view, then load this page again.");
      return;
    }
    if (now.key === before.key && this.failures++ > 0) {
      text.writeProblem(`Damaged: ${error.message}. crucible check tells what else is.`);
      return;
    }
    window.setTimeout(() => {
      this.blocks?.retry();
      this.readRecord();
      this.shower.changed("positions");
    }, RETRY_MS);
  }
}
