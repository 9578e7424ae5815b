// The page: what is shown, and what a person does with it.

import { count, stepAt } from "./axis";
import { readAddress, writeAddress } from "./address";
import { tokenAt, type Frame } from "./cloud";
import { fetchCommit, type Commit } from "./commit";
import { connect } from "./controls";
import { findToken } from "./find";
import { page, writeProblem } from "./page";
import { Hand } from "./pool";
import { tokenAtHeight } from "./raster";
import { Run, type Shower } from "./run";
import { Stage } from "./stage";
import { fetchView, labelOf, rowOf, type View } from "./view";

const STEPS_PER_S = 30;
const MOST_OWED = 4;
const FEWEST_STEPS = 8;

/** Workers start while the first files are on their way. */
const near = new Hand();
const far = new Hand();

export class App implements Shower {
  /** Position of the step that is shown. What a person reads is its label. */
  step = 0;
  token = -1;
  /** What was looked for last, if no token has it. */
  unknown = "";
  frame: Frame = "centred";
  range: [number, number] = [0, 0];
  /** A range that is being drawn by hand. */
  picked: [number, number] | null = null;
  /** Whether the range grows with the run. */
  private showsAll = true;
  isPlaying = false;
  isFollowing = false;
  speed = 1;
  readonly run: Run;
  private readonly stage: Stage;
  private hasChosen = false;

  constructor(commit: Commit, view: View) {
    this.run = new Run(commit, view, near, far, this);
    this.stage = new Stage(this);
    this.range = this.run.shown;
    this.isFollowing = this.run.goesOn;
    this.step = this.isFollowing ? this.last : this.first + Math.round((this.last - this.first) / 16);
    this.readAddress();
    this.run.begin();
  }

  /** Position of the first step that is shown: the run's, or the selection's. */
  get first(): number {
    return this.run.shown[0];
  }

  /** Position of the last one. */
  get last(): number {
    return this.run.shown[1];
  }

  /** The label of a step, by its position. */
  label(row: number): number {
    return labelOf(this.view.labels, row);
  }

  get view(): View {
    return this.run.view;
  }

  /** Whether all steps are shown. */
  get isWhole(): boolean {
    return this.range[0] === this.first && this.range[1] === this.last;
  }

  // ---- what a person does

  go(step: number): void {
    this.show(step);
    this.isFollowing = this.isFollowing && this.step === this.last;
  }

  goToMotion(direction: 1 | -1): void {
    const found = this.run.record.motionFrom(this.step, direction);
    if (found !== null && found >= this.first && found <= this.last) this.go(found);
  }

  goAt(x: number): void {
    this.go(this.stepAtX(x));
  }

  choose(token: number): void {
    if (!this.run.isShown(token)) return;
    this.token = token;
    this.unknown = "";
    this.hasChosen = true;
    this.touch();
    this.remember();
  }

  /** The token that froze before (-1) or after (+1) the chosen one. */
  chooseNext(direction: 1 | -1): void {
    const { order, rank } = this.run;
    const at = this.token < 0 ? 0 : rank[this.token] + direction;
    this.choose(order[Math.min(order.length - 1, Math.max(0, at))]);
  }

  chooseAt(x: number, y: number): void {
    if (this.stage.drawn) this.choose(tokenAt(this.stage.drawn, this.run.order, x, y));
  }

  chooseInRaster(x: number, y: number): void {
    this.choose(tokenAtHeight(page.raster, this.run.order, y));
    this.goAt(x);
  }

  /** Choose the token of this id or text; false if there is none. */
  find(said: string): boolean {
    const token = findToken(this.view, said, (at) => this.run.isShown(at));
    this.unknown = said;
    this.choose(token);
    this.touch();
    return token >= 0;
  }

  stepAtX(x: number): number {
    return stepAt(this.stage.axis(), x);
  }

  setFrame(frame: Frame): void {
    this.frame = frame;
    for (const input of page.frames.querySelectorAll("input")) input.checked = input.value === frame;
    this.touch();
    this.remember();
  }

  /** Show `span` + 1 steps from `from` on, as far as the run has them. */
  setRange(from: number, span: number): void {
    const width = Math.min(this.last - this.first, Math.max(FEWEST_STEPS, Math.round(span)));
    const start = Math.min(this.last - width, Math.max(this.first, Math.round(from)));
    this.range = [start, start + width];
    this.showsAll = this.isWhole;
    this.stage.curvesChanged();
    this.remember();
  }

  showAll(): void {
    this.setRange(this.first, this.last - this.first);
  }

  /** Show more steps or fewer; the one that is shown keeps its place. */
  zoom(factor: number): void {
    const axis = this.stage.axis();
    const span = (count(axis) - 1) * factor;
    this.setRange(this.step - ((this.step - axis.from) / Math.max(1, count(axis) - 1)) * span, span);
  }

  play(isPlaying: boolean): void {
    if (isPlaying && this.step >= this.last) this.go(this.first);
    this.isPlaying = isPlaying;
    page.play.classList.toggle("playing", isPlaying);
    page.play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
    if (isPlaying) this.playFrom(performance.now(), 0);
  }

  follow(isFollowing: boolean): void {
    this.isFollowing = isFollowing && this.run.status.state === "recording";
    if (this.isFollowing) this.show(this.last);
    this.touch();
  }

  refit(): void {
    this.run.refit();
    this.stage.axesChanged();
  }

  readAddress(): void {
    const address = readAddress(location.hash);
    const token = address.token === null ? -1 : this.view.ids.indexOf(address.token);
    if (token >= 0) this.choose(token);
    if (address.frame) this.setFrame(address.frame);
    const { labels } = this.view;
    if (address.range) {
      const [from, to] = address.range.map((label) => rowOf(labels, label));
      this.setRange(from, to - from);
    }
    if (address.step !== null) this.go(rowOf(labels, address.step));
  }

  // ---- what the run does

  changed(what: Parameters<Shower["changed"]>[0]): void {
    if (what === "status" && this.run.status.state !== "recording") this.isFollowing = false;
    this.stage.changed(what);
  }

  grown(): void {
    if (this.showsAll) this.range = this.run.shown;
    if (this.isFollowing) this.show(this.last);
    this.stage.curvesChanged();
  }

  restarted(): void {
    this.range = this.run.shown;
    this.showsAll = true;
    if (!this.run.isShown(this.token)) this.token = -1;
    this.stage.forget();
    this.show(this.isFollowing ? this.last : this.step);
  }

  viewed(): void {
    if (!this.hasChosen && this.view.answers) this.token = this.run.order.at(-1) ?? -1;
    this.stage.curvesChanged();
  }

  progress(share: number | null): void {
    page.loading.hidden = share === null || this.run.blocks?.at(this.step) !== undefined;
    if (share !== null) page.loading.value = share;
  }

  // ---- showing

  touch(): void {
    this.stage.touch();
  }

  onResize(): void {
    this.stage.curvesChanged();
  }

  onTheme(): void {
    this.stage.themeChanged();
  }

  private show(step: number): void {
    this.step = Math.min(this.last, Math.max(this.first, Math.round(step)));
    const [from, to] = this.range;
    if (this.step < from || this.step > to) this.setRange(this.step - Math.floor((to - from) / 2), to - from);
    this.run.blocks?.want(this.step);
    this.touch();
    this.remember();
  }

  /** Go on with the steps that are due; wait for a block that is not here. */
  private playFrom(before: number, owed: number): void {
    requestAnimationFrame((now) => {
      if (!this.isPlaying) return;
      let due = owed;
      if (!this.run.blocks || this.run.blocks.at(this.step)) {
        due = Math.min(owed + ((now - before) / 1000) * STEPS_PER_S * this.speed, MOST_OWED * this.speed);
        const whole = Math.floor(due);
        due -= whole;
        if (whole) this.show(this.step + whole);
        if (this.step >= this.last && !this.isFollowing) this.play(false);
      }
      if (this.isPlaying) this.playFrom(now, due);
    });
  }

  private remember(): void {
    const token = this.hasChosen && this.token >= 0 ? this.view.ids[this.token] : null;
    const range: [number, number] | null = this.isWhole ? null : [this.label(this.range[0]), this.label(this.range[1])];
    writeAddress({ step: this.label(this.step), token, frame: this.frame, range });
  }
}

async function begin(): Promise<void> {
  const [commit, view] = await Promise.all([fetchCommit(), fetchView()]);
  if (!commit) throw new Error("There is no trajectory here that this page can read.");
  connect(new App(commit, view));
}

begin().catch((error: unknown) => writeProblem(error instanceof Error ? error.message : String(error)));
