// The bits of one token at one step: a line for each weight, sign, exponent and mantissa apart, the flipped ones lit.

import { bitCount, type BitLayout } from "./floats";
import { fit, type Theme } from "./theme";

const LINES = 32;
const LABEL = 24;
const GUTTER = 14;
/** A line is at least so high; what does not fit is scrolled. */
const LEAST_PX = 8;
/** Room between sign, exponent and mantissa, in cells. */
const GAPS = 0.8;

export interface BitsScene {
  theme: Theme;
  layout: BitLayout;
  now: number[];
  before: number[] | null;
}

/** Flipped bits, by weight. */
export function flips(scene: { now: number[]; before: number[] | null }): number[] {
  return scene.now.map((bits, j) => (scene.before ? (bits ^ scene.before[j]) >>> 0 : 0));
}

export function ones(value: number): number {
  let count = 0;
  for (let left = value >>> 0; left; left = (left & (left - 1)) >>> 0) count++;
  return count;
}

/** Words of 16 or 32 bits in hexadecimal, a blank between them. */
export function hex(values: number[], layout: BitLayout): string {
  const digits = bitCount(layout) / 4;
  return values.map((value) => value.toString(16).padStart(digits, "0")).join(" ");
}

/** Columns of lines side by side: 32 weights each, at most four. */
function columnsFor(hidden: number): { columns: number; lines: number } {
  const columns = Math.min(4, Math.ceil(hidden / LINES));
  return { columns: Math.max(1, columns), lines: Math.ceil(hidden / Math.max(1, columns)) };
}

export function drawBits(canvas: HTMLCanvasElement, scene: BitsScene): void {
  const { columns, lines } = columnsFor(scene.now.length);
  const count = bitCount(scene.layout);
  const wide = canvas.clientWidth;
  const pitch = Math.min(15, (wide - columns * LABEL - GUTTER * (columns - 1)) / columns / (count + GAPS));
  const room = (canvas.parentElement?.clientHeight ?? 0) / lines - 0.15;
  const tall = Math.max(LEAST_PX, Math.min(pitch * 1.3, Math.max(room, LEAST_PX)));
  canvas.style.height = `${Math.floor(lines * tall + 4)}px`;
  const { ctx, width, height } = fit(canvas);
  ctx.clearRect(0, 0, width, height);
  ctx.font = `${Math.min(10, tall)}px ${scene.theme.sans}`;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  const changed = flips(scene);
  scene.now.forEach((bits, j) => {
    const column = Math.floor(j / lines);
    const x = column * (LABEL + pitch * (count + GAPS) + GUTTER);
    const y = 1 + (j % lines) * tall;
    ctx.fillStyle = changed[j] ? scene.theme.ink : scene.theme.soft;
    if (tall >= 9.5 || j % 4 === 0) ctx.fillText(String(j), x + LABEL - 7, y + tall / 2);
    drawWord(ctx, scene, bits, changed[j], { x: x + LABEL, y, pitch, tall });
  });
  ctx.textBaseline = "alphabetic";
}

interface Line {
  x: number;
  y: number;
  pitch: number;
  tall: number;
}

/** One weight: a filled cell for 1, a pale one for 0; a flipped one has a frame, and a core of its own colour. */
function drawWord(ctx: CanvasRenderingContext2D, scene: BitsScene, bits: number, flipped: number, line: Line): void {
  const { layout, theme } = scene;
  const count = bitCount(layout);
  const [w, h] = [line.pitch - 1.2, line.tall - 1.6];
  for (let k = 0; k < count; k++) {
    const isSet = (bits >>> (count - 1 - k)) & 1;
    const isFlipped = (flipped >>> (count - 1 - k)) & 1;
    const gap = (k > 0 ? 0.4 : 0) + (k > layout.exponent ? 0.4 : 0);
    const x = line.x + (k + gap) * line.pitch;
    const y = line.y + 0.8;
    ctx.fillStyle = k === 0 ? theme.bits.sign : k <= layout.exponent ? theme.bits.exponent : theme.bits.mantissa;
    ctx.globalAlpha = isSet ? (flipped ? 1 : 0.8) : 0.16;
    ctx.fillRect(x, y, w, h);
    ctx.globalAlpha = 1;
    if (!isFlipped) continue;
    ctx.fillStyle = theme.flip;
    ctx.globalAlpha = isSet ? 1 : 0.28;
    ctx.fillRect(x, y, w, h);
    ctx.globalAlpha = 1;
    ctx.strokeStyle = theme.flip;
    ctx.lineWidth = 1.6;
    ctx.strokeRect(x - 0.4, y - 0.4, w + 0.8, h + 0.8);
  }
}
