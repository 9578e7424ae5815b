// Directions on a sphere as a map of the whole sky, in Mollweide's projection, which keeps areas.

import type { Theme } from "./theme";

const MARGIN = 14;
const NEWTON_STEPS = 6;

/** Writes the place of a direction on three axes (of any length) on the canvas to xs[i], ys[i]. */
export type SkyPlace = (x: number, y: number, z: number, xs: Float32Array, ys: Float32Array, i: number) => void;

export function mollweide(width: number, height: number): SkyPlace {
  const scale = radius(width, height);
  return (x, y, z, xs, ys, i) => {
    const length = Math.sqrt(x * x + y * y + z * z);
    const theta = length ? auxiliaryOf(z / length) : 0;
    xs[i] = width / 2 + ((2 * Math.atan2(y, x)) / Math.PI) * scale * Math.cos(theta);
    ys[i] = height / 2 - scale * Math.sin(theta);
  };
}

const TABLE = 2048;
let table: Float64Array | null = null;

/** The auxiliary angle by the sine of the latitude, from a table: a pixel is far wider than its error. */
function auxiliaryOf(sine: number): number {
  table ??= Float64Array.from({ length: TABLE + 1 }, (_, i) => auxiliary(Math.asin((2 * i) / TABLE - 1)));
  const at = Math.min(TABLE, Math.max(0, ((sine + 1) / 2) * TABLE));
  const low = Math.min(TABLE - 1, Math.floor(at));
  return table[low] + (table[low + 1] - table[low]) * (at - low);
}

/** Half the height of the map. It is twice as wide as high. */
function radius(width: number, height: number): number {
  return Math.max(10, Math.min(height / 2 - MARGIN, width / 4 - MARGIN / 2));
}

function onMap(longitude: number, latitude: number, width: number, height: number, scale: number): [number, number] {
  const theta = auxiliary(latitude);
  return [width / 2 + ((2 * longitude) / Math.PI) * scale * Math.cos(theta), height / 2 - scale * Math.sin(theta)];
}

/** The angle theta with 2 theta + sin 2 theta = pi sin(latitude), by Newton's method. */
function auxiliary(latitude: number): number {
  if (Math.abs(Math.abs(latitude) - Math.PI / 2) < 1e-6) return latitude;
  const wanted = Math.PI * Math.sin(latitude);
  let theta = latitude;
  for (let i = 0; i < NEWTON_STEPS; i++) {
    theta -= (2 * theta + Math.sin(2 * theta) - wanted) / Math.max(1e-9, 2 + 2 * Math.cos(2 * theta));
  }
  return theta;
}

/** Meridians and parallels every 30 degrees, and the edge. */
export function graticule(ctx: CanvasRenderingContext2D, width: number, height: number, theme: Theme): void {
  const scale = radius(width, height);
  const line = (points: [number, number][], colour: string): void => {
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (const [longitude, latitude] of points) ctx.lineTo(...onMap(longitude, latitude, width, height, scale));
    ctx.stroke();
  };
  const radians = (degrees: number): number => (degrees * Math.PI) / 180;
  const sweep = (from: number, to: number): number[] => Array.from({ length: 61 }, (_, i) => radians(from + ((to - from) * i) / 60));
  for (let degrees = -150; degrees <= 150; degrees += 30) line(sweep(-90, 90).map((b) => [radians(degrees), b]), theme.rule);
  for (let degrees = -60; degrees <= 60; degrees += 30) line(sweep(-180, 180).map((l) => [l, radians(degrees)]), theme.rule);
  for (const edge of [-180, 180]) line(sweep(-90, 90).map((b) => [radians(edge), b]), theme.faint);
}
