// What is drawn, from the state of the page, once a frame of the screen at most.

import type { App } from "./app";
import { count, stepAxis, type StepAxis } from "./axis";
import { drawBits, flips, hex, ones } from "./bits";
import { drawCloud, type Drawn } from "./cloud";
import { movedAt } from "./counting";
import { bitCount, layoutOf } from "./floats";
import * as text from "./page";
import { page } from "./page";
import { drawRaster } from "./raster";
import { readTheme, type Theme } from "./theme";
import { drawTimeline, extremes } from "./timeline";
import { labelOf } from "./view";

const THUMB_PX = 16;
/** While the run is still being read, the raster is asked for so often. */
const RASTER_MS = 400;
/** And so often the curves are drawn again. */
const CURVES_MS = 120;

export class Stage {
  /** Where the tokens are on the canvas, since the last drawing. */
  drawn: Drawn | null = null;
  private theme: Theme = readTheme();
  private frameAsked = 0;
  private haveCurvesChanged = true;
  private way: Float32Array | null = null;
  /** The least and the largest loss of the steps that are shown. */
  private lossSpan: [number, number] | null = null;
  /** All that the cloud on the canvas was drawn from. */
  private cloudDrawn: unknown[] = [];
  private positionsVersion = 0;
  private curvesTimer = 0;
  private motionVersion = 0;
  private rasterAsked = "";
  private rasterAskedAt = 0;
  private isRasterBusy = false;

  constructor(private readonly app: App) {}

  touch(): void {
    if (!this.frameAsked) this.frameAsked = requestAnimationFrame(() => this.draw());
  }

  changed(what: string): void {
    if (what === "motion" || what === "whole") this.motionVersion++;
    if (what === "centroid") this.way = null;
    if (what === "whole") performance.mark("whole");
    if (what === "positions") this.positionsVersion++;
    if (what === "motion" || what === "loss" || what === "whole") this.haveCurvesChanged = true;
    if (what === "motion" && !this.app.run.record.isWhole) this.touchSoon();
    else this.touch();
  }

  /** The motion of a run comes in dozens of blocks. */
  private touchSoon(): void {
    this.curvesTimer ||= window.setTimeout(() => {
      this.curvesTimer = 0;
      this.touch();
    }, CURVES_MS);
  }

  curvesChanged(): void {
    this.haveCurvesChanged = true;
    this.touch();
  }

  axesChanged(): void {
    this.way = null;
    this.touch();
  }

  themeChanged(): void {
    this.theme = readTheme();
    this.curvesChanged();
  }

  /** Another run: no drawing stands. */
  forget(): void {
    this.drawn = null;
    this.way = null;
    this.rasterAsked = "";
    this.curvesChanged();
  }

  axis(): StepAxis {
    return stepAxis(this.app.range, page.raster.clientWidth);
  }

  private draw(): void {
    this.frameAsked = 0;
    const { app } = this;
    const { record, view, cloud } = app.run;
    this.drawTheCloud();
    this.drawTime();
    this.drawToken();
    const moving = app.step < record.counts.length ? record.counts[app.step] : -1;
    text.writeNow(app.label(app.step), moving, record.loss?.[app.step] ?? null);
    page.follow.hidden = app.run.status.state !== "recording";
    page.follow.setAttribute("aria-pressed", String(app.isFollowing));
    page.refit.hidden = !view.cloud || !cloud || view.cloud.axes_of_step === cloud.axes_of_step;
    page.lastMotion.disabled = page.back.disabled = app.step <= app.first;
    page.nextMotion.disabled = page.forward.disabled = app.step >= app.last;
  }

  private drawTheCloud(): void {
    const { step, token, frame, view, run } = this.app;
    if (!run.blocks || !run.cloud) {
      text.write("cloud-text", "This run keeps no weights, so there is no cloud to draw.");
      return;
    }
    const here = run.blocks.at(step);
    page.cloud.classList.toggle("waiting", !here && this.drawn !== null);
    if (!here) return;
    this.way ??= this.wayOfCentroid();
    const { theme, way } = this;
    const motion = run.record.motionAt(step);
    const { clientWidth, clientHeight } = page.cloud;
    const from = [here, this.positionsVersion, step, token, frame, run.cloud, view.answers, run.rank, motion, way, theme, clientWidth, clientHeight, window.devicePixelRatio];
    if (this.drawn && from.every((value, i) => value === this.cloudDrawn[i])) return;
    this.cloudDrawn = from;
    const label = this.app.label(step);
    const moved = motion && movedAt(motion, step);
    const at = (earlier: number) => run.blocks?.peek(earlier);
    const isShown = (other: number) => run.isShown(other);
    this.drawn = drawCloud(page.cloud, { theme, cloud: run.cloud, frame, step, label, token, answers: view.answers, here, isShown, at, moved, way });
    Object.assign(page.cloud.dataset, { step: String(label), frame });
    if (view.answers) text.writeLegend(view, view.answers, this.drawn.phases);
    text.write("cloud-text", text.cloudWords(run.cloud, frame, this.drawn.strange, this.way !== null));
    markOnce("first-picture");
  }

  /** The centroid's path on the two axes. */
  private wayOfCentroid(): Float32Array | null {
    const { record, cloud, lastRow: last } = this.app.run;
    if (!record.centroid || !cloud) return null;
    const { values, hidden } = record.centroid;
    const steps = Math.min(last + 1, values.length / hidden);
    if (steps <= this.app.step) return null;
    const way = new Float32Array(2 * steps);
    for (let step = 0; step < steps; step++) {
      for (let j = 0; j < hidden; j++) {
        way[2 * step] += cloud.axes[0][j] * values[step * hidden + j];
        way[2 * step + 1] += cloud.axes[1][j] * values[step * hidden + j];
      }
    }
    return way;
  }

  private drawTime(): void {
    const { app, theme } = this;
    const { step, token, view, picked } = app;
    const { record, order, rank } = app.run;
    const axis = this.axis();
    const label = (row: number) => app.label(row);
    drawRaster(page.raster, { theme, axis, raster: record.raster, answers: view.answers, order, rank, step, token, label });
    const { counts, loss } = record;
    if (this.haveCurvesChanged) this.lossSpan = loss && extremes(loss, axis.from, axis.to);
    drawTimeline(page.timeline, { theme, axis, counts, loss, tokens: order.length, step, labels: view.labels, picked }, this.haveCurvesChanged);
    this.haveCurvesChanged = false;
    this.placeSlider(axis);
    this.askForRaster(axis);
    page.whole.hidden = app.isWhole;
    text.writeTime(view, order.length, app.isWhole ? null : [label(app.range[0]), label(app.range[1])], this.lossSpan);
  }

  /** The slider's knob stands over the step of the curve above it. */
  private placeSlider(axis: StepAxis): void {
    const strip = axis.width / count(axis);
    const { step, range, last, view } = this.app;
    page.step.style.marginLeft = `${axis.left + strip / 2 - THUMB_PX / 2}px`;
    page.step.style.width = `${axis.width - strip + THUMB_PX}px`;
    page.step.min = String(range[0]);
    page.step.max = String(range[1]);
    page.step.value = String(step);
    page.step.setAttribute("aria-valuetext", `step ${labelOf(view.labels, step)} of ${labelOf(view.labels, last)}`);
  }

  /** One raster at a time, the next when something changed since. */
  private askForRaster(axis: StepAxis): void {
    const { range, view, run } = this.app;
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const lines = run.order.length;
    const rows = Math.min(lines, Math.ceil(page.raster.clientHeight * ratio));
    const columns = Math.min(count(axis), Math.ceil(axis.width * ratio));
    const isWhole = run.record.isWhole;
    const version = [rows, columns, range, this.motionVersion, view.commit.key, view.answers !== null].join(" ");
    if (this.isRasterBusy || this.rasterAsked === version || !this.motionVersion || !rows) return;
    const early = this.rasterAskedAt + RASTER_MS - performance.now();
    if (!isWhole && early > 0) {
      window.setTimeout(() => this.touch(), early);
      return;
    }
    [this.isRasterBusy, this.rasterAsked, this.rasterAskedAt] = [true, version, performance.now()];
    const rowOfToken = run.rank.map((rank) => (rank < 0 ? -1 : Math.floor((rank * rows) / lines)));
    void run.record.readRaster(rowOfToken, rows, columns, range[0], range[1] + 1).then(() => {
      this.isRasterBusy = false;
      page.raster.dataset.state = page.timeline.dataset.state = isWhole ? "whole" : "partial";
      if (isWhole) markOnce("whole-raster");
      this.touch();
    });
  }

  private drawToken(): void {
    const { token, step, view, run } = this.app;
    text.writeToken(view, token, this.app.unknown);
    const weights = run.weights();
    if (token < 0 || !weights) return;
    const bits = run.record.bitsOf(weights, token, step);
    page.bits.classList.toggle("waiting", !bits);
    if (!bits) return;
    const layout = layoutOf(weights.metadata);
    drawBits(page.bits, { theme: this.theme, layout, ...bits });
    const changed = flips(bits);
    const named = { step: String(this.app.label(step)), token: String(view.ids[token]) };
    Object.assign(page.bits.dataset, { ...named, bits: hex(bits.now, layout), flips: hex(changed, layout) });
    const flipped = changed.reduce((sum, word) => sum + ones(word), 0);
    const where = changed.filter((word) => word !== 0).length;
    text.writeFlips(step, flipped, where, bits.now.length, bits.now.length * bitCount(layout));
  }
}

/** A moment of the page's life, for measuring; the first time counts. */
function markOnce(name: string): void {
  if (performance.getEntriesByName(name).length === 0) performance.mark(name);
}
