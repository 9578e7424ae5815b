// The cloud of tokens at one step, on two axes; hue is the phase of a token, bright is who moves now.

import { shapeOf, Sheet, stamp, type Dot } from "./dots";
import type { Positions } from "./protocol";
import { EDGE_PX, insetBox, type Box } from "./inset";
import { graticule, mollweide } from "./sky";
import { fit, phaseColour, type Theme } from "./theme";
import { phaseAt, type Answers, type Cloud } from "./view";
import { short } from "./words";

export type Frame = "centred" | "fixed" | "sky";

export interface Scene {
  theme: Theme;
  cloud: Cloud;
  frame: Frame;
  /** Position of the step, and its label. */
  step: number;
  label: number;
  token: number;
  answers: Answers | null;
  here: Positions;
  isShown: (token: number) => boolean;
  /** Positions at an earlier step, for the trail. */
  at: (step: number) => Positions | undefined;
  moved: ((token: number) => boolean) | null;
  /** The way of the centroid on the two axes, one pair a step; what is not known is NaN. */
  way: Float32Array | null;
}

/** What is drawn where: for clicks, and for the words below. */
export interface Drawn {
  x: Float32Array;
  y: Float32Array;
  phases: number[];
  strange: number;
}

const TRAIL_STEPS = 64;
const MARGIN_PX = 14;

interface Sizes {
  still: number;
  moving: number;
}

export function drawCloud(canvas: HTMLCanvasElement, scene: Scene): Drawn {
  const { ctx, width, height, ratio } = fit(canvas);
  ctx.clearRect(0, 0, width, height);
  const project = projection(scene, width, height);
  const row = scene.step - scene.here.first;
  const { tokens } = scene.here;
  const drawn: Drawn = {
    x: new Float32Array(tokens),
    y: new Float32Array(tokens),
    phases: [],
    strange: scene.here.strange[row],
  };
  if (scene.frame === "sky") graticule(ctx, width, height, scene.theme);
  else if (scene.frame === "centred") drawRings(ctx, scene, width, height);
  project.all(scene.here, row, drawn);
  drawTokens(ctx, scene, drawn, sizesFor(tokens, Math.min(width, height)), ratio);
  if (scene.frame === "centred") nameRings(ctx, scene, width, height);
  if (scene.token >= 0) drawChosen(ctx, scene, drawn, project, width);
  if (scene.way && scene.frame !== "sky") drawWay(ctx, scene, drawn, project, width, height);
  return drawn;
}

/** The nearest to a place of these tokens, if one is near enough for a finger. */
export function tokenAt(drawn: Drawn, tokens: Int32Array, x: number, y: number, reach = 18): number {
  let [best, nearest] = [-1, reach * reach];
  for (const token of tokens) {
    const distance = (drawn.x[token] - x) ** 2 + (drawn.y[token] - y) ** 2;
    if (distance < nearest) [best, nearest] = [token, distance];
  }
  return best;
}

interface Projection {
  all: (positions: Positions, row: number, drawn: Drawn) => void;
  one: (positions: Positions, row: number, token: number) => [number, number];
  /** A place of the fixed frame; null in the others, which move with the centroid. */
  plane: ((x: number, y: number) => [number, number]) | null;
}

/** From positions on the axes to places on the canvas. */
function projection(scene: Scene, width: number, height: number): Projection {
  const { cloud, frame } = scene;
  const sky = frame === "sky" ? mollweide(width, height) : null;
  const plane = planeOf(cloud, frame, width, height);
  const all = (positions: Positions, row: number, drawn: Drawn): void => {
    const { x, y, z, centre, tokens } = positions;
    const [cx, cy, cz] = frame === "fixed" ? [0, 0, 0] : centre.subarray(3 * row, 3 * row + 3);
    const from = row * tokens;
    for (let token = 0; token < tokens; token++) {
      const at = from + token;
      if (sky) sky(x[at] - cx, y[at] - cy, z[at] - cz, drawn.x, drawn.y, token);
      else {
        drawn.x[token] = plane.left + (x[at] - cx) * plane.scale;
        drawn.y[token] = plane.top - (y[at] - cy) * plane.scale;
      }
    }
  };
  const one = (positions: Positions, row: number, token: number): [number, number] => {
    const at = row * positions.tokens + token;
    const [cx, cy, cz] = frame === "fixed" ? [0, 0, 0] : positions.centre.subarray(3 * row, 3 * row + 3);
    const [px, py] = [positions.x[at] - cx, positions.y[at] - cy];
    if (!sky) return [plane.left + px * plane.scale, plane.top - py * plane.scale];
    const [sx, sy] = [new Float32Array(1), new Float32Array(1)];
    sky(px, py, positions.z[at] - cz, sx, sy, 0);
    return [sx[0], sy[0]];
  };
  const inPlane = (x: number, y: number): [number, number] => [plane.left + x * plane.scale, plane.top - y * plane.scale];
  return { all, one, plane: frame === "fixed" ? inPlane : null };
}

/** Where the origin lies on the canvas, and pixels for a unit of the weights. */
interface Plane {
  left: number;
  top: number;
  scale: number;
}

function planeOf(cloud: Cloud, frame: Frame, width: number, height: number): Plane {
  if (frame === "centred") {
    return { left: width / 2, top: height / 2, scale: (Math.min(width, height) / 2 - MARGIN_PX) / cloud.reach };
  }
  const [low, high] = cloud.box;
  const [w, h] = [high[0] - low[0] || 1, high[1] - low[1] || 1];
  const scale = Math.min((width - 2 * MARGIN_PX) / w, (height - 2 * MARGIN_PX) / h);
  const [mx, my] = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
  return { left: width / 2 - mx * scale, top: height / 2 + my * scale, scale };
}

function sizesFor(tokens: number, extent: number): Sizes {
  const crowd = Math.sqrt((extent * extent) / Math.max(1, tokens));
  const still = Math.min(4.5, Math.max(1.05, crowd / 6));
  return { still, moving: still * 1.35 + 0.6 };
}

/** A class of dots for each phase, resting or moving. Kept, to make nothing anew for a frame. */
let classes = new Uint8Array(0);
const NOWHERE = 255;
const NOT_SHOWN = 254;

function drawTokens(ctx: CanvasRenderingContext2D, scene: Scene, drawn: Drawn, sizes: Sizes, ratio: number): void {
  const count = scene.answers?.exits.length ?? 3;
  const phases = (drawn.phases = Array<number>(count + 1).fill(0));
  const tokens = drawn.x.length;
  if (classes.length !== tokens) classes = new Uint8Array(tokens);
  for (let token = 0; token < tokens; token++) {
    const isPlaced = Number.isFinite(drawn.x[token] + drawn.y[token]);
    classes[token] = isPlaced ? NOT_SHOWN : NOWHERE;
    if (!scene.isShown(token)) continue;
    const phase = scene.answers ? phaseAt(scene.answers, token, scene.label) : count;
    phases[phase]++;
    if (isPlaced) classes[token] = 2 * phase + (scene.moved?.(token) ? 1 : 0);
  }
  sheet.clear(ctx.canvas.width, ctx.canvas.height);
  const draw = (dot: Dot, kind: number): void => {
    const own = stamp(dot, scene.theme, ratio);
    for (let token = 0; token < tokens; token++) if (classes[token] === kind) sheet.put(own, drawn.x[token] * ratio, drawn.y[token] * ratio);
  };
  draw({ shape: "disc", colour: scene.theme.rule, radius: sizes.still, isMoving: false }, NOT_SHOWN); // where the others are
  for (const isMoving of [0, 1]) {
    for (let phase = count; phase >= 0; phase--) {
      const colour = phaseColour(scene.theme, phase, count);
      const radius = isMoving ? sizes.moving : sizes.still;
      draw({ shape: shapeOf(phase, count), colour, radius, isMoving: Boolean(isMoving) }, 2 * phase + isMoving);
    }
  }
  sheet.drawOn(ctx);
}

const sheet = new Sheet();

/** The radii of two circles about the centroid, and those that lie in the corners, in units of the weights. */
function radii({ cloud }: Scene): number[] {
  const power = 10 ** Math.floor(Math.log10(cloud.reach));
  const unit = [5, 2, 1, 0.5].map((m) => m * power).find((radius) => radius * 2 <= cloud.reach) ?? power / 5;
  return Array.from({ length: Math.ceil((cloud.reach * 1.3) / unit) - 1 }, (_, i) => (i + 1) * unit);
}

function drawRings(ctx: CanvasRenderingContext2D, scene: Scene, width: number, height: number): void {
  const { scale } = planeOf(scene.cloud, "centred", width, height);
  ctx.strokeStyle = scene.theme.rule;
  ctx.lineWidth = 1;
  for (const radius of radii(scene)) {
    ctx.beginPath();
    ctx.arc(width / 2, height / 2, radius * scale, 0, 2 * Math.PI);
    ctx.stroke();
  }
}

/** Their radii, over the dots, with an edge so that they can be read there. */
function nameRings(ctx: CanvasRenderingContext2D, scene: Scene, width: number, height: number): void {
  const { scale } = planeOf(scene.cloud, "centred", width, height);
  ctx.font = `11px ${scene.theme.sans}`;
  ctx.textAlign = "center";
  ctx.lineJoin = "round";
  ctx.lineWidth = 3.5;
  ctx.strokeStyle = scene.theme.well;
  ctx.fillStyle = scene.theme.soft;
  for (const radius of radii(scene)) {
    const y = height / 2 + radius * scale - 4;
    if (y >= height - 4) continue;
    ctx.strokeText(short(radius), width / 2, y);
    ctx.fillText(short(radius), width / 2, y);
  }
}

function drawChosen(ctx: CanvasRenderingContext2D, scene: Scene, drawn: Drawn, project: Projection, width: number): void {
  const { token, theme } = scene;
  const trail: [number, number][] = [];
  for (let step = scene.step; step >= Math.max(0, scene.step - TRAIL_STEPS); step--) {
    const block = scene.at(step);
    if (!block || step >= block.first + block.rows) break;
    trail.push(project.one(block, step - block.first, token));
  }
  ctx.lineCap = "round";
  ctx.strokeStyle = theme.mark;
  for (let i = 1; i < trail.length; i++) {
    const [a, b] = [trail[i - 1], trail[i]];
    if (scene.frame === "sky" && Math.abs(a[0] - b[0]) > width / 3) continue; // over the edge of the map
    ctx.globalAlpha = 0.85 * (1 - i / (TRAIL_STEPS + 1));
    ctx.lineWidth = 1.8;
    ctx.beginPath();
    ctx.moveTo(...a);
    ctx.lineTo(...b);
    ctx.stroke();
  }
  ctx.globalAlpha = 1;
  const [x, y] = [drawn.x[token], drawn.y[token]];
  if (!Number.isFinite(x + y)) return;
  for (const [colour, line, radius] of [[theme.well, 4.5, 8], [theme.mark, 1.8, 8]] as const) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = line;
    ctx.beginPath();
    ctx.arc(x, y, radius, 0, 2 * Math.PI);
    ctx.stroke();
  }
}

/** The centroid's path: over the cloud where the frame is fixed, else small, in a corner. */
function drawWay(ctx: CanvasRenderingContext2D, scene: Scene, drawn: Drawn, project: Projection, width: number, height: number): void {
  const way = scene.way!;
  const steps = way.length / 2;
  const place = project.plane ?? insetPlace(ctx, scene, way, insetBox(drawn.x[scene.token], drawn.y[scene.token], width, height));
  if (!place) return;
  const stride = Math.max(1, Math.floor(steps / 800));
  for (const [from, to, colour, line] of [
    [0, steps - 1, scene.theme.faint, 1.2],
    [0, scene.step, scene.theme.ink, 1.4],
  ] as const) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = line;
    ctx.globalAlpha = project.plane ? 0.55 : 0.9;
    ctx.beginPath();
    for (let step = from; step <= to; step += stride) ctx.lineTo(...place(way[2 * step], way[2 * step + 1]));
    if (to > from) ctx.lineTo(...place(way[2 * to], way[2 * to + 1]));
    ctx.stroke();
  }
  ctx.globalAlpha = 1;
  ctx.fillStyle = scene.theme.mark;
  ctx.beginPath();
  ctx.arc(...place(way[2 * scene.step], way[2 * scene.step + 1]), project.plane ? 3.4 : 2.8, 0, 2 * Math.PI);
  ctx.fill();
}

function insetPlace(
  ctx: CanvasRenderingContext2D,
  scene: Scene,
  way: Float32Array,
  { left, top, size }: Box,
): ((x: number, y: number) => [number, number]) | null {
  const pad = 6;
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let at = 0; at < way.length; at += 2) {
    [x0, x1] = [Math.min(x0, way[at]), Math.max(x1, way[at])];
    [y0, y1] = [Math.min(y0, way[at + 1]), Math.max(y1, way[at + 1])];
  }
  const span = Math.max(x1 - x0, y1 - y0);
  if (!(span >= 0) || !Number.isFinite(span)) return null;
  const scale = (size - 2 * pad) / (span || 1);
  ctx.fillStyle = scene.theme.well;
  ctx.globalAlpha = 0.82;
  ctx.fillRect(left - 4, top - 20, size + 8, size + 24);
  ctx.globalAlpha = 1;
  ctx.fillStyle = scene.theme.soft;
  ctx.font = `11px ${scene.theme.sans}`;
  ctx.textAlign = left === EDGE_PX ? "left" : "right";
  ctx.fillText("way of the centroid", left === EDGE_PX ? left : left + size, top - 6);
  ctx.strokeStyle = scene.theme.rule;
  ctx.lineWidth = 1;
  ctx.strokeRect(left + 0.5, top + 0.5, size - 1, size - 1);
  const [mx, my] = [(x0 + x1) / 2, (y0 + y1) / 2];
  return (x, y) => [left + size / 2 + (x - mx) * scale, top + size / 2 - (y - my) * scale];
}
