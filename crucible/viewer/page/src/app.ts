// The page: its state, what is drawn from it, and what happens when the run goes on.

import { count, stepAt, stepAxis, type StepAxis } from "./axis";
import { readAddress, writeAddress } from "./address";
import { drawBits, flips, hex, ones } from "./bits";
import { Blocks } from "./blocks";
import { drawCloud, tokenAt, type Drawn, type Frame } from "./cloud";
import { fetchCommit, isSameRun, locate, Poll, type Commit } from "./commit";
import { connect } from "./controls";
import { bitCount, layoutOf } from "./floats";
import * as text from "./page";
import { page } from "./page";
import { Hand, Unread } from "./pool";
import type { Located } from "./protocol";
import { drawRaster, tokenAtHeight } from "./raster";
import { Record } from "./record";
import { readTheme, type Theme } from "./theme";
import { drawTimeline } from "./timeline";
import { fetchStatus, fetchView, freezeOrder, type Status, type View } from "./view";
import { grouped, plural, quoted } from "./words";

const STEPS_PER_S = 30;
const FEWEST_STEPS = 8;
const VIEW_AGAIN_MS = 500;
const RETRY_MS = 400;

export class App {
  step = 0;
  token = -1;
  frame: Frame = "centred";
  range: [number, number] = [0, 0];
  isPlaying = false;
  speed = 1;
  isFollowing = false;
  picked: [number, number] | null = null;

  private readonly near = new Hand();
  private readonly far = new Hand();
  private readonly record: Record;
  private readonly poll: Poll;
  private blocks: Blocks | null = null;
  private status: Status = { state: "complete", command: null };
  private theme: Theme = readTheme();
  private order = new Int32Array(0);
  private rank = new Int32Array(0);
  private drawn: Drawn | null = null;
  private way: Float32Array | null = null;
  private frameAsked = 0;
  private haveCurvesChanged = true;
  private rasterAsked = "";
  private isRasterBusy = false;
  private motionVersion = 0;
  private hasChosen = false;
  private retries = 0;

  constructor(
    private commit: Commit,
    private view: View,
  ) {
    this.record = new Record(this.far, (what) => this.onRecord(what), (error) => void this.onFailure(error));
    this.poll = new Poll(commit, (next) => this.onCommit(next), () => void this.readStatus());
    this.readAddress(true);
    this.setView(view);
    this.makeBlocks();
    this.readRecord();
    void this.readStatus();
    if (!commit.completed && !view.state) this.poll.start();
    if (!this.isViewCurrent()) void this.readView();
  }

  get steps(): number {
    return this.commit.steps;
  }

  get tokens(): number {
    return this.view.tokens;
  }

  // ---- what a person does

  go(step: number, { byHand = true } = {}): void {
    this.step = Math.min(this.steps, Math.max(0, Math.round(step)));
    if (byHand) this.isFollowing = this.isFollowing && this.step === this.steps;
    const [from, to] = this.range;
    if (this.step < from || this.step > to) this.setRange(this.step - Math.floor((to - from) / 2), to - from);
    this.blocks?.want(this.step);
    this.touch();
    this.remember();
  }

  goToMotion(direction: 1 | -1): void {
    const found = this.record.motionFrom(this.step, direction);
    if (found !== null) this.go(found);
  }

  choose(token: number): void {
    if (token < 0 || token >= this.tokens) return;
    this.token = token;
    this.hasChosen = true;
    this.touch();
    this.remember();
  }

  /** The token that froze before (-1) or after (+1) the chosen one. */
  chooseNext(direction: 1 | -1): void {
    const at = this.token < 0 ? 0 : this.rank[this.token] + direction;
    this.choose(this.order[Math.min(this.tokens - 1, Math.max(0, at))]);
  }

  chooseAt(x: number, y: number): void {
    if (this.drawn) this.choose(tokenAt(this.drawn, x, y));
  }

  chooseInRaster(x: number, y: number): void {
    this.choose(tokenAtHeight(page.raster, this.order, y));
    this.go(this.stepAtX(x));
  }

  stepAtX(x: number): number {
    return stepAt(this.axis(), x);
  }

  setFrame(frame: Frame): void {
    this.frame = frame;
    for (const input of page.frames.querySelectorAll("input")) input.checked = input.value === frame;
    this.touch();
    this.remember();
  }

  /** Show `span` + 1 steps from `from` on, as far as the run has them. */
  setRange(from: number, span: number): void {
    const width = Math.min(this.steps, Math.max(Math.min(FEWEST_STEPS, this.steps), Math.round(span)));
    const start = Math.min(this.steps - width, Math.max(0, Math.round(from)));
    this.range = [start, start + width];
    this.haveCurvesChanged = true;
    this.touch();
    this.remember();
  }

  zoom(factor: number): void {
    const [from, to] = this.range;
    const span = (to - from) * factor;
    this.setRange(this.step - ((this.step - from) / Math.max(1, to - from)) * span, span);
  }

  play(isPlaying: boolean): void {
    if (isPlaying && this.step >= this.steps) this.go(0);
    this.isPlaying = isPlaying;
    page.play.classList.toggle("playing", isPlaying);
    page.play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
    if (isPlaying) this.playFrom(performance.now(), 0);
  }

  follow(isFollowing: boolean): void {
    this.isFollowing = isFollowing && this.status.state === "recording";
    if (this.isFollowing) this.go(this.steps);
    this.touch();
  }

  /** The axes of the newest view, in place of those that were kept while following. */
  refit(): void {
    const weights = this.weights();
    if (!weights || !this.view.cloud || !this.blocks) return;
    this.shownCloud = this.view.cloud;
    this.blocks.reset(weights, this.shownCloud.axes);
    this.way = null;
    this.blocks.want(this.step);
    this.touch();
  }
  private shownCloud: View["cloud"] = null;

  find(said: string): boolean {
    const token = findToken(this.view, said);
    if (token < 0) return false;
    this.choose(token);
    return true;
  }

  /** Ids and texts that fit what was typed, some of them. */
  suggestions(said: string, most: number): [string, string][] {
    const wanted = said.trim().toLowerCase();
    const made: [string, string][] = [];
    for (let token = 0; wanted && token < this.tokens && made.length < most; token++) {
      const [id, shown] = [String(this.view.ids[token]), this.view.texts?.[token] ?? ""];
      if (id.startsWith(wanted) || shown.toLowerCase().includes(wanted)) made.push([id, shown ? quoted(shown) : `id ${id}`]);
    }
    return made;
  }

  readAddress(isFirst = false): void {
    const address = readAddress(location.hash);
    if (isFirst) this.range = [0, this.steps];
    const token = address.token === null ? -1 : this.view.ids.indexOf(address.token);
    if (token >= 0) [this.token, this.hasChosen] = [token, true];
    if (address.frame) this.setFrame(address.frame);
    if (address.range) this.setRange(address.range[0], address.range[1] - address.range[0]);
    if (isFirst && address.step === null) {
      this.isFollowing = !this.commit.completed && !this.view.state;
      this.step = this.isFollowing ? this.steps : Math.round(this.steps / 16);
    } else if (address.step !== null) this.go(address.step);
  }

  onTheme(): void {
    this.theme = readTheme();
    this.onResize();
  }

  onResize(): void {
    this.haveCurvesChanged = true;
    this.touch();
  }

  // ---- what the run does

  private makeBlocks(): void {
    const weights = this.weights();
    this.shownCloud = this.view.cloud;
    if (!weights || !this.shownCloud) {
      this.blocks = null;
      return;
    }
    this.blocks = new Blocks(
      this.near,
      weights,
      this.shownCloud.axes,
      () => this.touch(),
      (share) => this.showProgress(share),
      (error) => void this.onFailure(error),
    );
    this.blocks.want(this.step);
  }

  private readRecord(): void {
    const of = (name: string): Located | null => locate(this.commit, this.view.prefix, name);
    const norm = of(`displacement_${this.view.answers?.norm ?? "l2"}`);
    const threshold = this.view.answers?.threshold ?? 0.1;
    void this.record.read({ norm, weights: this.weights(), threshold }, of("loss"), of("centroid"), this.step);
  }

  private weights(): Located | null {
    const found = locate(this.commit, this.view.prefix, "W");
    return found && found.metadata.shape.length === 3 ? found : null;
  }

  private onCommit(next: Commit): void {
    const isGrown = isSameRun(this.commit, next);
    const wasWhole = this.range[0] === 0 && this.range[1] === this.steps;
    this.commit = next;
    this.retries = 0;
    text.writeProblem(null);
    if (!isGrown) {
      void this.beginAgain();
      return;
    }
    const weights = this.weights();
    if (weights) this.blocks?.grow(weights);
    if (wasWhole) this.range = [0, this.steps];
    this.haveCurvesChanged = true;
    this.readRecord();
    if (this.isFollowing) this.go(this.steps, { byHand: false });
    this.touch();
    void this.readView();
  }

  /** Another run, or one that was cut or compacted: nothing that was read stands any more. */
  private async beginAgain(): Promise<void> {
    this.record.reset();
    this.way = null;
    this.drawn = null;
    this.rasterAsked = "";
    this.step = Math.min(this.step, this.steps);
    this.range = [0, this.steps];
    await this.readView(true);
    this.makeBlocks();
    this.readRecord();
    this.go(this.isFollowing ? this.steps : this.step, { byHand: false });
  }

  private isViewCurrent(): boolean {
    return this.view.commit.key === this.commit.key && this.view.answers !== null;
  }

  /** Ask for the view until it is that of the commit; `first` waits for whatever there is of this commit. */
  private async readView(first = false): Promise<void> {
    const wanted = this.commit.key;
    while (this.commit.key === wanted) {
      try {
        const view = await fetchView();
        if (this.commit.key !== wanted) return;
        const isOfCommit = view.commit.key === wanted || Boolean(view.state);
        if (isOfCommit || (view.answers && !first)) this.setView(view);
        if (isOfCommit && (view.answers || first)) {
          if (!view.answers) void this.readView();
          return;
        }
      } catch (error) {
        text.writeProblem(error instanceof Error ? error.message : String(error));
        if (!first) return;
      }
      await new Promise((resolve) => setTimeout(resolve, VIEW_AGAIN_MS));
    }
  }

  private setView(view: View): void {
    const hadAnswers = this.view.answers;
    this.view = view;
    if (!this.shownCloud) this.shownCloud = view.cloud;
    this.order = freezeOrder(view.answers, view.tokens);
    this.rank = new Int32Array(view.tokens);
    this.order.forEach((token, at) => (this.rank[token] = at));
    if (!this.hasChosen && view.answers && view.tokens) this.token = this.order[view.tokens - 1];
    text.writeHeader(view, this.steps);
    text.writeVerdict(view);
    this.rasterAsked = "";
    const isOtherQuestion =
      view.answers && (view.answers.norm !== (hadAnswers?.norm ?? "l2") || view.answers.threshold > 0.5);
    if (isOtherQuestion && !hadAnswers && this.blocks) {
      this.record.reset();
      this.readRecord();
    }
    this.touch();
  }

  private async readStatus(): Promise<void> {
    const before = this.status.state;
    this.status = await fetchStatus(this.view);
    text.writeStatus(this.status);
    page.follow.hidden = this.status.state !== "recording";
    if (this.status.state !== "recording" && before === "recording") this.isFollowing = false;
    this.touch();
  }

  private onRecord(what: "motion" | "loss" | "centroid" | "raster" | "token" | "whole"): void {
    if (what === "motion") this.motionVersion++;
    if (what === "centroid") this.way = null;
    if (what === "whole") {
      performance.mark("whole");
      this.rasterAsked = "";
    }
    if (what !== "raster" && what !== "token") this.haveCurvesChanged = true;
    this.touch();
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
    } else if (now.key === before.key && this.retries++ > 0) {
      text.writeProblem(`Damaged: ${error.message}. crucible check says what else is.`);
      return;
    }
    window.setTimeout(() => {
      this.blocks?.retry();
      this.readRecord();
    }, RETRY_MS);
  }

  // ---- drawing

  touch(): void {
    if (!this.frameAsked) this.frameAsked = requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    this.frameAsked = 0;
    this.drawTheCloud();
    this.drawTime();
    this.drawToken();
    const moving = this.step < this.record.counts.length ? this.record.counts[this.step] : -1;
    text.writeNow(this.step, moving, this.record.loss?.[this.step] ?? null);
    page.follow.setAttribute("aria-pressed", String(this.isFollowing));
    page.refit.hidden = !this.view.cloud || !this.shownCloud || this.view.cloud.axes_of_step === this.shownCloud.axes_of_step;
    page.lastMotion.disabled = page.back.disabled = this.step <= 0;
    page.nextMotion.disabled = page.forward.disabled = this.step >= this.steps;
  }

  private drawTheCloud(): void {
    if (!this.blocks || !this.shownCloud) {
      text.write("cloud-text", "This run keeps no weights, so there is no cloud to draw.");
      return;
    }
    const here = this.blocks.at(this.step);
    page.cloud.classList.toggle("waiting", !here && this.drawn !== null);
    if (!here) return;
    this.way ??= this.wayOfCentroid();
    const { theme, frame, step, token, way } = this;
    const { answers } = this.view;
    const moved = this.record.movedAt(step);
    const at = (earlier: number) => this.blocks?.peek(earlier);
    this.drawn = drawCloud(page.cloud, { theme, cloud: this.shownCloud, frame, step, token, answers, here, at, moved, way });
    page.cloud.dataset.step = String(step);
    page.cloud.dataset.frame = frame;
    if (answers) text.writeLegend(answers.phases, this.drawn.phases, answers.so_far);
    text.write("cloud-text", text.cloudWords(this.shownCloud, frame, this.drawn.strange));
    if (performance.getEntriesByName("first-picture").length === 0) performance.mark("first-picture");
  }

  /** The centroid's path on the two axes. */
  private wayOfCentroid(): Float32Array | null {
    const { centroid } = this.record;
    if (!centroid || !this.shownCloud) return null;
    const { values, hidden } = centroid;
    const steps = Math.min(this.steps + 1, values.length / hidden);
    if (steps <= this.step) return null;
    const way = new Float32Array(2 * steps);
    for (let step = 0; step < steps; step++) {
      for (let j = 0; j < hidden; j++) {
        way[2 * step] += this.shownCloud.axes[0][j] * values[step * hidden + j];
        way[2 * step + 1] += this.shownCloud.axes[1][j] * values[step * hidden + j];
      }
    }
    return way;
  }

  private axis(): StepAxis {
    return stepAxis(this.range, page.raster.clientWidth);
  }

  private drawTime(): void {
    const axis = this.axis();
    const { theme, step, token, order, rank, record } = this;
    const { answers } = this.view;
    drawRaster(page.raster, { theme, axis, raster: record.raster, answers, order, rank, step, token });
    const scene = { theme, axis, counts: record.counts, loss: record.loss, tokens: this.tokens, step, picked: this.picked };
    drawTimeline(page.timeline, scene, this.haveCurvesChanged);
    this.haveCurvesChanged = false;
    this.placeSlider(axis);
    this.askForRaster(axis);
    const [from, to] = this.range;
    const isWhole = from === 0 && to === this.steps;
    page.whole.hidden = isWhole;
    text.write("range-text", isWhole ? "drag over the curve to look closer" : `steps ${grouped(from)} to ${grouped(to)}`);
    this.describeTime();
  }

  private describeTime(): void {
    const { answers } = this.view;
    const so = answers?.so_far ? " so far" : "";
    const last = answers?.verdict.last_motion;
    const still = last === null || last === undefined ? "Nothing moved." : `The last motion${so} is at step ${grouped(last)}.`;
    const median = answers?.median_freeze ?? null;
    const middle = median === null ? "" : ` Half of the tokens made their last move${so} by step ${grouped(median)}.`;
    text.write("raster-text", `A line for each of ${plural(this.tokens, "token")}, the first to freeze on top.${middle}`);
    text.write("timeline-text", `How many tokens move at each step, and the loss. ${answers ? still : ""}`);
  }

  private placeSlider(axis: StepAxis): void {
    const strip = axis.width / count(axis);
    const thumb = 16;
    page.step.style.marginLeft = `${axis.left + strip / 2 - thumb / 2}px`;
    page.step.style.width = `${axis.width - strip + thumb}px`;
    page.step.min = String(this.range[0]);
    page.step.max = String(this.range[1]);
    page.step.value = String(this.step);
    page.step.setAttribute("aria-valuetext", `step ${this.step} of ${this.steps}`);
  }

  /** One raster at a time, the next when something changed since. */
  private askForRaster(axis: StepAxis): void {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const rows = Math.min(this.tokens, Math.ceil(page.raster.clientHeight * ratio));
    const columns = Math.min(count(axis), Math.ceil(axis.width * ratio));
    const version = `${rows} ${columns} ${this.range} ${this.motionVersion} ${this.view.commit.key} ${this.view.answers !== null}`;
    if (this.isRasterBusy || this.rasterAsked === version || !this.motionVersion || !rows) return;
    this.isRasterBusy = true;
    this.rasterAsked = version;
    const rowOfToken = this.rank.map((rank) => Math.floor((rank * rows) / this.tokens));
    const done = this.record.readRaster(rowOfToken, rows, columns, this.range[0], this.range[1] + 1);
    void done.then(() => {
      this.isRasterBusy = false;
      const isWhole = this.record.counts.length > 0 && this.record.counts.indexOf(-1) < 0;
      page.raster.dataset.state = page.timeline.dataset.state = isWhole ? "whole" : "partial";
      if (isWhole && performance.getEntriesByName("whole-raster").length === 0) performance.mark("whole-raster");
      this.touch();
    });
  }

  private drawToken(): void {
    text.writeToken(this.view, this.token);
    const weights = this.weights();
    if (this.token < 0 || !weights) return;
    const bits = this.record.bitsOf(weights, this.token, this.step);
    page.bits.classList.toggle("waiting", !bits);
    if (!bits) return;
    const layout = layoutOf(weights.metadata);
    drawBits(page.bits, { theme: this.theme, layout, ...bits });
    const changed = flips(bits);
    Object.assign(page.bits.dataset, {
      step: String(this.step),
      token: String(this.view.ids[this.token]),
      bits: hex(bits.now, layout),
      flips: hex(changed, layout),
    });
    const flipped = changed.reduce((sum, word) => sum + ones(word), 0);
    const where = changed.filter((word) => word !== 0).length;
    const all = grouped(bits.now.length * bitCount(layout));
    const said = flipped
      ? `${grouped(flipped)} of ${all} bits flipped, in ${grouped(where)} of ${plural(bits.now.length, "weight")}.`
      : this.step === 0 ? `${all} bits, as the run began.` : `None of ${all} bits flipped.`;
    text.write("bits-text", said);
  }

  private showProgress(share: number | null): void {
    page.loading.hidden = share === null || this.blocks?.at(this.step) !== undefined;
    if (share !== null) page.loading.value = share;
  }

  // ---- playing

  private playFrom(before: number, owed: number): void {
    requestAnimationFrame((now) => {
      if (!this.isPlaying) return;
      let due = owed;
      if (!this.blocks || this.blocks.at(this.step)) {
        due = Math.min(owed + ((now - before) / 1000) * STEPS_PER_S * this.speed, 4 * this.speed);
        const whole = Math.floor(due);
        due -= whole;
        if (whole) this.go(this.step + whole, { byHand: false });
        if (this.step >= this.steps && !this.isFollowing) this.play(false);
      }
      if (this.isPlaying) this.playFrom(now, due);
    });
  }

  private remember(): void {
    const isWhole = this.range[0] === 0 && this.range[1] === this.steps;
    const token = this.hasChosen && this.token >= 0 ? this.view.ids[this.token] : null;
    writeAddress({ step: this.step, token, frame: this.frame, range: isWhole ? null : this.range });
  }
}

/** A token by its id, or by its text: the whole of it, its beginning, or any part. */
export function findToken(view: View, said: string): number {
  const wanted = said.trim();
  if (!wanted) return -1;
  if (/^\d+$/.test(wanted)) {
    const at = view.ids.indexOf(Number(wanted));
    if (at >= 0) return at;
  }
  const texts = view.texts ?? [];
  const small = wanted.toLowerCase();
  const ways = [
    (shown: string) => shown === said,
    (shown: string) => shown.trim() === wanted,
    (shown: string) => shown.trim().toLowerCase().startsWith(small),
    (shown: string) => shown.toLowerCase().includes(small),
  ];
  for (const way of ways) {
    const at = texts.findIndex(way);
    if (at >= 0) return at;
  }
  return -1;
}

async function begin(): Promise<void> {
  const [commit, view] = await Promise.all([fetchCommit(), fetchView()]);
  if (!commit) throw new Error("There is no trajectory here that this page can read.");
  connect(new App(commit, view));
}

begin().catch((error: unknown) => text.writeProblem(error instanceof Error ? error.message : String(error)));
