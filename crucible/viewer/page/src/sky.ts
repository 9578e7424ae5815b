// Directions on a sphere as a map of the whole sky, in Mollweide's projection, which keeps areas.

import type { Theme } from "./theme";

const MARGIN = 14;
const NEWTON_STEPS = 6;

/** A direction on three axes (of any length) to a place on the canvas. */
export function mollweide(width: number, height: number): (x: number, y: number, z: number) => [number, number] {
  const scale = radius(width, height);
  return (x, y, z) => {
    const length = Math.hypot(x, y, z);
    if (!length) return [width / 2, height / 2];
    return onMap(Math.atan2(y, x), Math.asin(Math.max(-1, Math.min(1, z / length))), width, height, scale);
  };
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
