// A worker of the page: reads and decodes, one job after the other. Two of them run, see pool.ts.

import { UnreadError } from "./codecs";
import { asBits } from "./floats";
import { Motions } from "./motion";
import { positions } from "./positions";
import type { Job, Message, Motion, Reply, TokenBits, TokenJob, Whole } from "./protocol";
import { release, StoredArray } from "./zarr";

const motions = new Motions();
const cancelled = new Set<number>();

class CancelledError extends Error {}

addEventListener("message", (event: MessageEvent<Message>) => {
  const message = event.data;
  if ("cancel" in message) cancelled.add(message.id);
  else void answer(message.id, message.job);
});

async function answer(id: number, job: Job): Promise<void> {
  try {
    const done = await perform(job, id);
    const reply: Reply = { id, done };
    postMessage(reply, { transfer: buffersOf(done) });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const kind = error instanceof UnreadError ? "unread" : error instanceof CancelledError ? "cancelled" : "unknown";
    postMessage({ id, failed: { kind, message } } satisfies Reply);
  } finally {
    cancelled.delete(id);
  }
}

async function perform(job: Job, id: number): Promise<unknown> {
  switch (job.kind) {
    case "read":
      return read(new StoredArray(job.array));
    case "file":
      return new StoredArray(job.array).file(job.block);
    case "positions":
      return positions(job, (share) => turn(id, share));
    case "motion":
      return copyOf(await motions.block(job.source, job.block));
    case "raster":
      return motions.raster(job);
    case "token":
      return token(job);
    case "forget":
      motions.forget();
      return null;
  }
}

async function read(array: StoredArray): Promise<Whole> {
  return { shape: array.shape, values: await array.whole() };
}

/** The bits of one token over one block of steps: one chunk, of which a slice is needed. */
async function token(job: TokenJob): Promise<TokenBits> {
  const array = new StoredArray(job.weights);
  const chunk = await array.chunk([job.block, Math.floor(job.token / array.chunkShape[1]), 0]);
  const [rows, , hidden] = chunk.sizes;
  const all = asBits(chunk.values);
  const bits = all.BYTES_PER_ELEMENT === 2 ? new Uint16Array(rows * hidden) : new Uint32Array(rows * hidden);
  const from = (job.token - chunk.starts[1]) * chunk.strides[1];
  for (let j = 0; j < hidden; j++) {
    for (let row = 0; row < rows; row++) bits[j * rows + row] = all[from + j * chunk.strides[2] + row * chunk.strides[0]];
  }
  release(chunk);
  return { first: chunk.starts[0], rows, hidden, bits };
}

/** The worker keeps its own: what is sent away is gone. */
function copyOf(motion: Motion): Motion {
  return { ...motion, bits: motion.bits.slice(), counts: motion.counts.slice() };
}

/** One for all turns: ports that are started are never collected. */
const lane = new MessageChannel();
const waiting: (() => void)[] = [];
lane.port1.onmessage = () => waiting.shift()?.();

/** Tell how far a job is, and let messages in: one of them may call it off. */
async function turn(id: number, share: number): Promise<void> {
  postMessage({ id, progress: share } satisfies Reply);
  await new Promise<void>((resolve) => {
    waiting.push(resolve);
    lane.port2.postMessage(null);
  });
  if (cancelled.has(id)) throw new CancelledError("called off");
}

function buffersOf(done: unknown): ArrayBuffer[] {
  if (done === null || typeof done !== "object") return [];
  if (ArrayBuffer.isView(done)) return [done.buffer as ArrayBuffer];
  const arrays = Object.values(done).filter((value): value is ArrayBufferView<ArrayBuffer> => ArrayBuffer.isView(value));
  return [...new Set(arrays.map((array) => array.buffer))];
}
