// The one step axis that raster, timeline and slider share.

const SIDE_PX = 50;
const NARROW_SIDE_PX = 42;

export interface StepAxis {
  from: number;
  /** The last step shown, included. */
  to: number;
  left: number;
  width: number;
}

/** The axis over a canvas of this width. Step s lies in the middle of its own strip. */
export function stepAxis(range: [number, number], canvasWidth: number): StepAxis {
  const side = canvasWidth < 560 ? NARROW_SIDE_PX : SIDE_PX;
  return { from: range[0], to: range[1], left: side, width: Math.max(1, canvasWidth - 2 * side) };
}

export function count(axis: StepAxis): number {
  return axis.to - axis.from + 1;
}

/** The middle of a step's strip. */
export function xOf(axis: StepAxis, step: number): number {
  return axis.left + ((step - axis.from + 0.5) * axis.width) / count(axis);
}

export function stepAt(axis: StepAxis, x: number): number {
  const at = axis.from + Math.floor(((x - axis.left) * count(axis)) / axis.width);
  return Math.min(axis.to, Math.max(axis.from, at));
}

/** Round numbers, about `most` of them, within from..to. */
export function ticks(from: number, to: number, most: number): number[] {
  const span = Math.max(1, to - from);
  const raw = span / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(1, [1, 2, 5, 10].map((m) => m * power).find((size) => size >= raw) ?? 10 * power);
  const made: number[] = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) made.push(at);
  return made;
}
