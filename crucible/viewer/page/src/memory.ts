// Large memory that is used again: the collector, which sees small objects only, would let a hundred MB pile up.

import type { Bytes } from "./protocol";

const MOST_KEPT_BYTES = 8 << 20;

/** What is free, the oldest first. */
const free: Bytes[] = [];

/** Memory for so many bytes; what is in it is old, and must all be written over. */
export function take(length: number): Bytes {
  const at = free.findIndex((bytes) => bytes.length === length);
  return at < 0 ? new Uint8Array(length) : free.splice(at, 1)[0];
}

/** Give back memory that was taken here and that nothing looks at any more; the oldest goes where there is too much. */
export function giveBack(buffer: ArrayBuffer): void {
  free.push(new Uint8Array(buffer));
  let bytes = free.reduce((sum, each) => sum + each.length, 0);
  while (bytes > MOST_KEPT_BYTES) {
    bytes -= free[0].length;
    drop(free.shift()!.buffer);
  }
}

/** Free memory at once: a buffer that is sent to nobody goes with its message, whether it was made here, sent or fetched. */
export function drop(buffer: ArrayBuffer): void {
  const { port1, port2 } = new MessageChannel();
  port1.postMessage(null, [buffer]);
  port1.close();
  port2.close();
}
