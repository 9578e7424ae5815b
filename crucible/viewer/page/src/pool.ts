// The two workers, as functions that answer promises: both reckon positions, one of them does everything else, too.

import type { Answers, Job, Message, Reply } from "./protocol";

/** A file that could not be read: ask for the commit, then decide. */
export class Unread extends Error {}
/** Called off, since something else is wanted now. */
export class CalledOff extends Error {}

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
  onProgress?: (share: number) => void;
}

export class Hand {
  private readonly worker = new Worker("worker.js");
  private readonly pending = new Map<number, Pending>();
  private next = 1;

  constructor() {
    this.worker.onmessage = (event: MessageEvent<Reply>) => this.receive(event.data);
    this.worker.onerror = (event) => {
      for (const waiting of this.pending.values()) waiting.reject(new Error(event.message || "the worker failed"));
      this.pending.clear();
    };
  }

  ask<K extends Job["kind"]>(
    job: Extract<Job, { kind: K }>,
    onProgress?: (share: number) => void,
    transfer: ArrayBuffer[] = [],
  ): { id: number; done: Promise<Answers[K]> } {
    const id = this.next++;
    const done = new Promise<unknown>((resolve, reject) => this.pending.set(id, { resolve, reject, onProgress }));
    this.worker.postMessage({ id, job } satisfies Message, transfer);
    return { id, done: done as Promise<Answers[K]> };
  }

  callOff(id: number): void {
    this.worker.postMessage({ id, cancel: true } satisfies Message);
  }

  private receive(reply: Reply): void {
    const waiting = this.pending.get(reply.id);
    if (!waiting) return;
    if ("progress" in reply) {
      waiting.onProgress?.(reply.progress);
      return;
    }
    this.pending.delete(reply.id);
    if ("done" in reply) waiting.resolve(reply.done);
    else waiting.reject(errorOf(reply.failed));
  }
}

function errorOf(failed: { kind: "unread" | "cancelled" | "unknown"; message: string }): Error {
  if (failed.kind === "unread") return new Unread(failed.message);
  return failed.kind === "cancelled" ? new CalledOff(failed.message) : new Error(failed.message);
}
