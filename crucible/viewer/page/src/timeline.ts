// How many tokens move at each step, on an axis that shows one as well as thousands, with the loss on its own scale.

import { count, ticks, xOf, type StepAxis } from "./axis";
import { fit, type Theme } from "./theme";
import { labelOf, type Labels } from "./view";
import { grouped, short } from "./words";

const TOP = 8;
const RUG = 9;
const BOTTOM = 20;

export interface TimelineScene {
  theme: Theme;
  axis: StepAxis;
  counts: Int32Array;
  loss: Float32Array | null;
  tokens: number;
  step: number;
  labels: Labels;
  /** A range that is being drawn by hand. */
  picked: [number, number] | null;
}

/** Draw it; the curves only where they changed, since a million steps take longer than a frame. */
export function drawTimeline(canvas: HTMLCanvasElement, scene: TimelineScene, haveCurvesChanged: boolean): void {
  const { ctx, width, height, ratio } = fit(canvas);
  const base = height - BOTTOM - RUG;
  if (haveCurvesChanged || curves.width !== canvas.width || curves.height !== canvas.height) {
    curves.width = canvas.width;
    curves.height = canvas.height;
    const back = curves.getContext("2d")!;
    back.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawMoving(back, scene, base);
    if (scene.loss) drawLoss(back, scene, scene.loss, base);
    drawSteps(back, scene, height);
  }
  ctx.clearRect(0, 0, width, height);
  ctx.drawImage(curves, 0, 0, width, height);
  const { axis, theme } = scene;
  if (scene.picked) {
    const [a, b] = scene.picked.map((step) => xOf(axis, step));
    ctx.fillStyle = theme.accent;
    ctx.globalAlpha = 0.18;
    ctx.fillRect(Math.min(a, b), TOP, Math.abs(b - a), base + RUG - TOP);
    ctx.globalAlpha = 1;
  }
  if (scene.step >= axis.from && scene.step <= axis.to) {
    ctx.fillStyle = theme.mark;
    ctx.globalAlpha = 0.9;
    ctx.fillRect(xOf(axis, scene.step) - 0.75, 0, 1.5, height - BOTTOM + 2);
    ctx.globalAlpha = 1;
  }
}

const curves = document.createElement("canvas");

/** A symmetrical logarithm: 0 at 0, linear about 1, logarithmic above. */
function symlog(value: number): number {
  return Math.log1p(value);
}

interface Column {
  most: number;
  any: boolean;
}

/** The most tokens that moved at a step, for each pixel column; null where nothing is known. */
function columnsOf(scene: TimelineScene): (Column | null)[] {
  const { axis, counts } = scene;
  const columns: (Column | null)[] = Array(Math.ceil(axis.width)).fill(null);
  const scale = axis.width / count(axis);
  for (let step = axis.from; step <= Math.min(axis.to, counts.length - 1); step++) {
    if (counts[step] < 0) continue;
    const start = Math.floor((step - axis.from) * scale);
    const stop = Math.max(start + 1, Math.floor((step + 1 - axis.from) * scale));
    for (let c = start; c < Math.min(stop, columns.length); c++) {
      const column = (columns[c] ??= { most: 0, any: false });
      column.most = Math.max(column.most, counts[step]);
      column.any ||= counts[step] > 0;
    }
  }
  return columns;
}

function drawMoving(ctx: CanvasRenderingContext2D, scene: TimelineScene, base: number): void {
  const { axis, theme, tokens } = scene;
  const top = symlog(Math.max(1, tokens));
  const yOf = (value: number): number => base - (symlog(value) / top) * (base - TOP);
  ctx.font = `11px ${theme.sans}`;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  let last = Infinity;
  for (const value of [0, 1, 10, 100, 1000, 10000, 100000]) {
    if (value > tokens) break;
    const y = yOf(value);
    ctx.fillStyle = theme.rule;
    ctx.fillRect(axis.left, Math.round(y), axis.width, 1);
    if (last - y < 12) continue;
    last = y;
    ctx.fillStyle = theme.soft;
    ctx.fillText(value >= 1000 ? `${value / 1000}k` : String(value), axis.left - 6, y);
  }
  ctx.fillStyle = theme.movingFill;
  const columns = columnsOf(scene);
  columns.forEach((column, c) => {
    if (!column) return;
    const y = yOf(column.most);
    ctx.globalAlpha = 0.38;
    ctx.fillRect(axis.left + c, y, 1, base - y);
    if (!column.any) return;
    ctx.globalAlpha = 1;
    ctx.fillRect(axis.left + c, y - 0.5, 1, 1.6);
    ctx.fillRect(axis.left + c, base + 3, 1, RUG - 4);
  });
  ctx.globalAlpha = 1;
  ctx.textBaseline = "alphabetic";
  beside(ctx, theme, "moving", 10, (TOP + base) / 2, theme.movingFill);
}

function drawLoss(ctx: CanvasRenderingContext2D, scene: TimelineScene, loss: Float32Array, base: number): void {
  const { axis, theme } = scene;
  const points = means(axis, loss);
  const [low, high] = extremes(loss, axis.from, axis.to);
  if (!(low <= high)) return;
  const yOf = (value: number): number => base - 3 - ((value - low) / (high - low || 1)) * (base - TOP - 6);
  ctx.strokeStyle = theme.lossLine;
  ctx.lineWidth = 1.2;
  ctx.globalAlpha = 0.85;
  ctx.lineJoin = "round";
  ctx.beginPath();
  let isDown = false;
  points.forEach((value, c) => {
    if (Number.isFinite(value)) {
      if (isDown) ctx.lineTo(axis.left + ((c + 0.5) * axis.width) / points.length, yOf(value));
      else ctx.moveTo(axis.left + ((c + 0.5) * axis.width) / points.length, yOf(value));
    }
    isDown = Number.isFinite(value);
  });
  ctx.stroke();
  ctx.globalAlpha = 1;
  ctx.fillStyle = theme.lossLine;
  ctx.font = `11px ${theme.sans}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillText(short(high), axis.left + axis.width + 6, yOf(high) + 2);
  if (high > low) ctx.fillText(short(low), axis.left + axis.width + 6, yOf(low));
  ctx.textBaseline = "alphabetic";
  beside(ctx, theme, "loss", axis.left * 2 + axis.width - 4, (TOP + base) / 2, theme.lossLine);
}

/** The least and the largest finite value between two steps; infinite and the wrong way round where there is none. */
export function extremes(values: Float32Array, from: number, to: number): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (let step = from; step <= Math.min(to, values.length - 1); step++) {
    if (!Number.isFinite(values[step])) continue;
    if (values[step] < low) low = values[step];
    if (values[step] > high) high = values[step];
  }
  return [low, high];
}

/** The loss at each step, or its mean over a pixel column. */
function means(axis: StepAxis, loss: Float32Array): number[] {
  const columns = Math.min(count(axis), Math.ceil(axis.width));
  const sums = new Float64Array(columns);
  const counts = new Uint32Array(columns);
  for (let step = axis.from; step <= Math.min(axis.to, loss.length - 1); step++) {
    if (!Number.isFinite(loss[step])) continue;
    const c = Math.floor(((step - axis.from) * columns) / count(axis));
    sums[c] += loss[step];
    counts[c]++;
  }
  return Array.from(sums, (sum, c) => (counts[c] ? sum / counts[c] : NaN));
}

function drawSteps(ctx: CanvasRenderingContext2D, scene: TimelineScene, height: number): void {
  const { axis, theme } = scene;
  ctx.fillStyle = theme.soft;
  ctx.font = `11px ${theme.sans}`;
  ctx.textAlign = "center";
  const { first, list } = scene.labels;
  const shift = list ? 0 : first; // round labels, where they are consecutive
  for (const tick of ticks(axis.from + shift, axis.to + shift, axis.width / 90)) {
    ctx.fillText(grouped(labelOf(scene.labels, tick - shift)), xOf(axis, tick - shift), height - 5);
  }
}

/** The name of a scale, upright beside it. */
function beside(ctx: CanvasRenderingContext2D, theme: Theme, name: string, x: number, y: number, colour: string): void {
  ctx.save();
  ctx.font = `12px ${theme.sans}`;
  ctx.textAlign = "center";
  ctx.fillStyle = colour;
  ctx.translate(x, y);
  ctx.rotate(-Math.PI / 2);
  ctx.fillText(name, 0, 0);
  ctx.restore();
}
