// The raster: a line for each token, by freeze step, over all steps; the colour is the phase, bright where it moved.

import { count, xOf, type StepAxis } from "./axis";
import type { Raster } from "./protocol";
import { fit, phaseColour, rgb, type Theme } from "./theme";
import { phaseAt, type Answers } from "./view";

const TOP = 6;
const BOTTOM = 4;

export interface RasterScene {
  theme: Theme;
  axis: StepAxis;
  raster: Raster | null;
  answers: Answers | null;
  /** Positions of the tokens that are shown, the first to freeze in front; and the place of each in it, or -1. */
  order: Int32Array;
  rank: Int32Array;
  step: number;
  token: number;
  /** The label of a step by its position. */
  label: (row: number) => number;
}

export function drawRaster(canvas: HTMLCanvasElement, scene: RasterScene): void {
  const { ctx, width, height } = fit(canvas);
  const { axis, theme } = scene;
  ctx.clearRect(0, 0, width, height);
  const tall = height - TOP - BOTTOM;
  ctx.fillStyle = theme.well;
  ctx.fillRect(axis.left, TOP, axis.width, tall);
  const { raster } = scene;
  if (raster) {
    const left = xOf(axis, raster.from) - axis.width / count(axis) / 2;
    const right = xOf(axis, raster.to) - axis.width / count(axis) / 2;
    ctx.save();
    ctx.beginPath();
    ctx.rect(axis.left, TOP, axis.width, tall);
    ctx.clip();
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(imageOf(scene, raster), left, TOP, right - left, tall);
    ctx.restore();
  }
  labels(ctx, scene, tall);
  cursor(ctx, scene, tall);
}

/** The token whose line lies at a height; -1 beside the raster. */
export function tokenAtHeight(canvas: HTMLCanvasElement, order: Int32Array, y: number): number {
  const at = Math.floor(((y - TOP) * order.length) / (canvas.clientHeight - TOP - BOTTOM));
  return order[Math.min(order.length - 1, Math.max(0, at))] ?? -1;
}

let painted: { raster: Raster; answers: Answers | null; theme: Theme; image: HTMLCanvasElement } | null = null;

/** The cells as an image, painted again only when they change. */
function imageOf(scene: RasterScene, raster: Raster): HTMLCanvasElement {
  const { answers, theme, order } = scene;
  if (painted && painted.raster === raster && painted.answers === answers && painted.theme === theme) return painted.image;
  const image = document.createElement("canvas");
  image.width = raster.columns;
  image.height = raster.rows;
  const ctx = image.getContext("2d")!;
  const pixels = ctx.createImageData(raster.columns, raster.rows);
  const cells = new Uint32Array(pixels.data.buffer); // a pixel at once
  const phases = answers?.exits.length ?? 3;
  const tables = Array.from({ length: phases + 1 }, (_, phase) => shades(theme, phaseColour(theme, phase, phases), phase === phases));
  const scale = (raster.to - raster.from) / raster.columns;
  const labels = Float64Array.from({ length: raster.columns }, (_, column) =>
    scene.label(raster.from + Math.floor((column + 0.5) * scale)),
  );
  for (let row = 0; row < raster.rows; row++) {
    const token = order[Math.floor(((row + 0.5) * order.length) / raster.rows)];
    for (let column = 0; column < raster.columns; column++) {
      const phase = answers ? phaseAt(answers, token, labels[column]) : phases - 1;
      const at = row * raster.columns + column;
      cells[at] = tables[phase][raster.share[at]];
    }
  }
  ctx.putImageData(pixels, 0, 0);
  painted = { raster, answers, theme, image };
  return image;
}

/** The shades of a phase, from no motion to motion at every step; any motion stands out from none. */
function shades(theme: Theme, colour: string, isFrozen: boolean): Uint32Array {
  const [ground, full] = [rgb(theme.well), rgb(colour)];
  const table = new Uint8ClampedArray(4 * 256);
  const rest = isFrozen ? 0.1 : theme.isDark ? 0.24 : 0.2;
  for (let share = 0; share < 256; share++) {
    const part = share ? 0.5 + 0.5 * (share / 255) ** 0.45 : rest;
    for (let c = 0; c < 3; c++) table[4 * share + c] = ground[c] + (full[c] - ground[c]) * part;
    table[4 * share + 3] = 255;
  }
  return new Uint32Array(table.buffer);
}

function labels(ctx: CanvasRenderingContext2D, scene: RasterScene, tall: number): void {
  const { axis, theme, order } = scene;
  ctx.save();
  ctx.fillStyle = theme.soft;
  ctx.font = `11px ${theme.sans}`;
  ctx.textAlign = "center";
  ctx.translate(axis.left - 11, TOP + tall / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.fillText(order.length === 1 ? "1 token" : `${order.length.toLocaleString("en-US")} tokens`, 0, 0);
  ctx.restore();
}

function cursor(ctx: CanvasRenderingContext2D, scene: RasterScene, tall: number): void {
  const { axis, theme, token, rank, order } = scene;
  ctx.fillStyle = theme.mark;
  ctx.globalAlpha = 0.9;
  if (scene.step >= axis.from && scene.step <= axis.to) ctx.fillRect(xOf(axis, scene.step) - 0.75, TOP - 4, 1.5, tall + 8);
  if (rank[token] >= 0) {
    const y = TOP + ((rank[token] + 0.5) * tall) / order.length;
    ctx.globalAlpha = 0.5;
    ctx.fillRect(axis.left, y - 0.5, axis.width, 1);
    ctx.globalAlpha = 1;
    for (const [x, tip] of [[axis.left - 1, -6], [axis.left + axis.width + 1, 6]] as const) {
      ctx.beginPath();
      ctx.moveTo(x, y);
      ctx.lineTo(x + tip, y - 4);
      ctx.lineTo(x + tip, y + 4);
      ctx.fill();
    }
  }
  ctx.globalAlpha = 1;
}
