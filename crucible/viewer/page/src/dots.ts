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

const MOST_SPRITES = 64;
const sprites = new Map<string, HTMLCanvasElement>();

/** A dot, painted once; what rests is pale. */
export function sprite(dot: Dot, theme: Theme, ratio: number): HTMLCanvasElement {
  const key = `${dot.shape} ${dot.colour} ${dot.radius.toFixed(2)} ${dot.isMoving} ${theme.isDark} ${ratio}`;
  const known = sprites.get(key);
  if (known) return known;
  if (sprites.size > MOST_SPRITES) sprites.clear();
  const glow = dot.isMoving ? dot.radius * 2.4 : dot.radius;
  const size = Math.ceil((2 * glow + 3) * ratio);
  const made = document.createElement("canvas");
  made.width = made.height = size;
  const ctx = made.getContext("2d")!;
  ctx.translate(size / 2, size / 2);
  ctx.scale(ratio, ratio);
  paint(ctx, dot, glow, theme);
  sprites.set(key, made);
  return made;
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
