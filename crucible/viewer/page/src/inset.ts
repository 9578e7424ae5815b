// Where the way of the centroid stands, small, in a corner of the cloud.

export interface Box {
  left: number;
  top: number;
  size: number;
}

export const EDGE_PX = 12;
const TOP_PX = 26;
/** Around the box: its words above it, and the ring of the chosen token. */
const [ABOVE_PX, RING_PX] = [20, 14];

/** The box at the upper right, or at the upper left where it would lie over the chosen token (NaN: none is). */
export function insetBox(x: number, y: number, width: number, height: number): Box {
  const size = Math.max(64, Math.min(128, Math.min(width, height) * 0.27));
  const [left, top] = [width - size - EDGE_PX, TOP_PX];
  const isOver = x > left - RING_PX && y > top - ABOVE_PX - RING_PX && y < top + size + RING_PX;
  return { left: isOver ? EDGE_PX : left, top, size };
}
