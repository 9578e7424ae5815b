// The dots of the cloud: colour and shape are the phase, as in the legend; those that move are full and glow.

import type { Theme } from "./theme";

export type Shape = "disc" | "square" | "diamond" | "ring";

export interface Dot {
  shape: Shape;
  colour: string;
  radius: number;
  isMoving: boolean;
}

/** The shape of a phase of so many; the one after the last is frozen. */
export function shapeOf(phase: number, count: number): Shape {
  return phase === count ? "ring" : (["disc", "square", "diamond"] as const)[phase % 3];
}

/** A dot as pixels, at every quarter of a pixel to the right and down; colours multiplied by their alpha. */
interface Stamp {
  size: number;
  /** By quarter (down * 4 + right): size * size pixels of four bytes. */
  pixels: Uint8ClampedArray[];
}

const QUARTERS = 4;
const MOST_STAMPS = 64;
const stamps = new Map<string, Stamp>();

/** A dot, painted once; what rests is pale. */
export function stamp(dot: Dot, theme: Theme, ratio: number): Stamp {
  const key = `${dot.shape} ${dot.colour} ${dot.radius.toFixed(2)} ${dot.isMoving} ${theme.isDark} ${ratio}`;
  const known = stamps.get(key);
  if (known) return known;
  if (stamps.size > MOST_STAMPS) stamps.clear();
  const glow = dot.isMoving ? dot.radius * 2.4 : dot.radius;
  const size = Math.ceil((2 * glow + 2) * ratio) + 1;
  const sheet = document.createElement("canvas");
  sheet.width = sheet.height = QUARTERS * size;
  const ctx = sheet.getContext("2d", { willReadFrequently: true })!;
  const quarters = [...Array(QUARTERS * QUARTERS).keys()];
  const corner = (at: number): [number, number] => [(at % QUARTERS) * size, Math.floor(at / QUARTERS) * size];
  for (const at of quarters) {
    const [left, top] = corner(at);
    ctx.setTransform(ratio, 0, 0, ratio, left + size / 2 + (at % QUARTERS) / QUARTERS, top + size / 2 + Math.floor(at / QUARTERS) / QUARTERS);
    paint(ctx, dot, glow, theme);
  }
  const made = { size, pixels: quarters.map((at) => multiplied(ctx.getImageData(...corner(at), size, size).data)) };
  stamps.set(key, made);
  return made;
}

function multiplied(data: Uint8ClampedArray): Uint8ClampedArray {
  for (let at = 0; at < data.length; at += 4) for (let c = 0; c < 3; c++) data[at + c] = (data[at + c] * data[at + 3]) / 255;
  return data;
}

/** Pixels on which thousands of dots are stamped: a canvas takes far longer to draw as many images. */
export class Sheet {
  private width = 0;
  private height = 0;
  private pixels = new Uint8ClampedArray(0);
  private image: ImageData | null = null;
  private readonly canvas = document.createElement("canvas");

  /** Begin anew, with nothing on it. */
  clear(width: number, height: number): void {
    if (width === this.width && height === this.height) {
      this.pixels.fill(0);
      return;
    }
    [this.width, this.height] = [width, height];
    [this.canvas.width, this.canvas.height] = [width, height];
    this.pixels = new Uint8ClampedArray(4 * width * height);
    this.image = new ImageData(width, height);
  }

  /** Put a dot over what is there; its middle in pixels. */
  put(dot: Stamp, x: number, y: number): void {
    const { size } = dot;
    const [right, down] = [x - size / 2, y - size / 2].map((at) => Math.round(at * QUARTERS));
    const [left, top] = [right >> 2, down >> 2];
    if (left + size <= 0 || top + size <= 0 || left >= this.width || top >= this.height) return;
    const from = dot.pixels[(down & 3) * QUARTERS + (right & 3)];
    const { pixels, width } = this;
    const [first, last] = [Math.max(0, -left), Math.min(size, width - left)];
    for (let row = Math.max(0, -top); row < Math.min(size, this.height - top); row++) {
      let to = 4 * ((top + row) * width + left + first);
      for (let at = 4 * (row * size + first); at < 4 * (row * size + last); at += 4, to += 4) {
        const alpha = from[at + 3];
        if (!alpha) continue;
        const rest = 255 - alpha;
        for (let c = 0; c < 4; c++) pixels[to + c] = from[at + c] + (pixels[to + c] * rest) / 255;
      }
    }
  }

  /** Draw it over the whole of a canvas of the same size. */
  drawOn(ctx: CanvasRenderingContext2D): void {
    const { pixels, image } = this;
    const { data } = image!;
    for (let at = 0; at < pixels.length; at += 4) {
      const alpha = (data[at + 3] = pixels[at + 3]);
      if (alpha) for (let c = 0; c < 3; c++) data[at + c] = (pixels[at + c] * 255) / alpha;
    }
    this.canvas.getContext("2d")!.putImageData(image!, 0, 0);
    ctx.save();
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.drawImage(this.canvas, 0, 0);
    ctx.restore();
  }
}

function paint(ctx: CanvasRenderingContext2D, { shape, colour, radius, isMoving }: Dot, glow: number, theme: Theme): void {
  const fill = (as: Shape, reach: number, alpha: number, ink: string): void => {
    ctx.globalAlpha = alpha;
    ctx.fillStyle = ink;
    outline(ctx, as, reach);
    ctx.fill();
  };
  if (!isMoving) {
    fill(shape, radius, shape === "ring" ? 0.9 : theme.isDark ? 0.75 : 0.58, colour);
    return;
  }
  const light = theme.isDark ? 0.1 : 0.06;
  fill("disc", glow, light, colour);
  fill("disc", glow * 0.7, light * 1.4, colour);
  fill(shape, radius + 0.7, 0.75, theme.well); // an edge, so that neighbours stay apart
  fill(shape, radius, 1, colour);
}

/** The path of a shape that covers about as much as a disc of this radius. */
function outline(ctx: CanvasRenderingContext2D, shape: Shape, radius: number): void {
  ctx.beginPath();
  if (shape === "square") ctx.rect(-0.88 * radius, -0.88 * radius, 1.76 * radius, 1.76 * radius);
  else if (shape === "diamond") {
    const tip = 1.25 * radius;
    ctx.moveTo(0, -tip);
    ctx.lineTo(tip, 0);
    ctx.lineTo(0, tip);
    ctx.lineTo(-tip, 0);
  } else {
    ctx.arc(0, 0, radius, 0, 2 * Math.PI);
    if (shape === "ring") ctx.arc(0, 0, 0.5 * radius, 0, 2 * Math.PI, true);
  }
}
