// Files over HTTP: whole, or ranges of them; a host that answers a range with the whole file is understood.

import { UnreadError } from "./codecs";
import { drop } from "./memory";
import type { Bytes } from "./protocol";

/** A whole file. */
export async function fetchFile(url: string): Promise<Bytes> {
  const response = await ask(url, {});
  return body(response, url);
}

/** The last `count` bytes of a file. */
export async function fetchTail(url: string, count: number): Promise<Bytes> {
  const response = await ask(url, { Range: `bytes=-${count}` });
  const bytes = await body(response, url);
  const tail = response.status === 206 ? bytes : bytes.slice(-count);
  if (tail.length !== count) throw new UnreadError(`${name(url)}: ${tail.length} bytes, expected ${count} at its end`);
  return tail;
}

/** Bytes start .. start + count - 1 of a file. */
export async function fetchRange(url: string, start: number, count: number): Promise<Bytes> {
  const response = await ask(url, { Range: `bytes=${start}-${start + count - 1}` });
  const bytes = await body(response, url);
  const part = response.status === 206 ? bytes : bytes.slice(start, start + count);
  if (part !== bytes) drop(bytes.buffer);
  if (part.length !== count) throw new UnreadError(`${name(url)}: ${part.length} bytes, expected ${count} at ${start}`);
  return part;
}

/** The part of an address that names the file, for messages. */
export function name(url: string): string {
  return url.replace(/^.*trajectory\.zarr\//, "").replace(/\?.*$/, "");
}

async function ask(url: string, headers: Record<string, string>): Promise<Response> {
  let response: Response;
  try {
    // Parts of a file that grows must not be mixed in a cache.
    response = await fetch(url, headers.Range ? { headers, cache: "no-store" } : {});
  } catch {
    throw new UnreadError(`${name(url)}: the server does not answer`);
  }
  if (!response.ok) throw new UnreadError(`${name(url)}: the server answers ${response.status}`);
  return response;
}

async function body(response: Response, url: string): Promise<Bytes> {
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch {
    throw new UnreadError(`${name(url)}: the answer was cut short`);
  }
}
