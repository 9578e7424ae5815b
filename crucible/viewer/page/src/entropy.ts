// The two codes of Zstandard (RFC 8878, section 4): finite state tables, and Huffman codes read backwards.

/** A state table; an entry holds what its state stands for (byte 3), how many bits follow (byte 2), and the next state without them. */
export interface States {
  log: number;
  entries: Uint32Array;
}

/** A Huffman code: by its next `bits` bits, the symbol (high byte) and how many of them belong to it (low byte). */
export interface Huffman {
  bits: number;
  entries: Uint16Array;
}

const MOST_SYMBOLS = 256;
const MOST_WEIGHT = 11;
const WEIGHTS_LOG = 6;

export function highestBit(value: number): number {
  return 31 - Math.clz32(value);
}

/** Read the distribution at `at` and make its table; also where it ends. */
export function readStates(bytes: Uint8Array, at: number, mostLog: number): { states: States; end: number } {
  let place = 0;
  const peek = (count: number): number => {
    const byte = at + (place >> 3);
    const word = (bytes[byte] ?? 0) | ((bytes[byte + 1] ?? 0) << 8) | ((bytes[byte + 2] ?? 0) << 16);
    return (word >>> (place & 7)) & ((1 << count) - 1);
  };
  const log = peek(4) + 5;
  place += 4;
  if (log > mostLog) throw new Error("a table that is too large");
  const shares: number[] = [];
  for (let left = 1 << log; left > 0; ) {
    if (shares.length >= MOST_SYMBOLS) throw new Error("a table of too many symbols");
    const count = highestBit(left + 1) + 1;
    const low = (1 << (count - 1)) - 1;
    const least = (1 << count) - 2 - left;
    let value = peek(count);
    if ((value & low) < least) {
      value &= low;
      place += count - 1;
    } else {
      if (value > low) value -= least;
      place += count;
    }
    shares.push(value - 1);
    left -= Math.abs(value - 1);
    if (left < 0) throw new Error("shares that exceed their table");
    for (let zeros = value === 1 ? 3 : 0; zeros === 3; ) {
      zeros = peek(2);
      place += 2;
      for (let i = 0; i < zeros; i++) shares.push(0);
    }
  }
  return { states: statesOf(shares, log), end: at + ((place + 7) >> 3) };
}

/** The table of a distribution: shares of 2 ** log, -1 for less than one. */
export function statesOf(shares: number[], log: number): States {
  const size = 1 << log;
  const entries = new Uint32Array(size);
  const symbols = new Uint8Array(size);
  const seen = shares.map((share) => Math.abs(share));
  let top = size;
  shares.forEach((share, symbol) => {
    if (share < 0) symbols[--top] = symbol;
  });
  const step = (size >> 1) + (size >> 3) + 3;
  let at = 0;
  shares.forEach((share, symbol) => {
    for (let i = 0; i < share; i++) {
      symbols[at] = symbol;
      do at = (at + step) & (size - 1);
      while (at >= top);
    }
  });
  if (at !== 0) throw new Error("shares that do not fill their table");
  for (let state = 0; state < size; state++) {
    const count = seen[symbols[state]]++;
    const bits = log - highestBit(count);
    entries[state] = (symbols[state] << 24) | (bits << 16) | ((count << bits) - size);
  }
  return { log, entries };
}

/** A table of one symbol, which takes no bits. */
export function onlyState(symbol: number): States {
  return { log: 0, entries: Uint32Array.of(symbol << 24) };
}

/** Read the Huffman code at `at`; also where it ends. */
export function readHuffman(bytes: Uint8Array, at: number): { huffman: Huffman; end: number } {
  const head = bytes[at++];
  if (head < 128) return { huffman: huffmanOf(packedWeights(bytes, at, at + head)), end: at + head };
  const count = head - 127;
  const weights = Array.from({ length: count }, (_, i) => (i & 1 ? bytes[at + (i >> 1)] & 15 : bytes[at + (i >> 1)] >> 4));
  return { huffman: huffmanOf(weights), end: at + ((count + 1) >> 1) };
}

/** Weights that are packed by a state table, two states in turn. */
function packedWeights(bytes: Uint8Array, at: number, end: number): number[] {
  const { states, end: start } = readStates(bytes, at, WEIGHTS_LOG);
  const stream = bytes.subarray(start, end);
  let place = lastBit(stream);
  const read = (count: number): number => {
    place -= count;
    let value = 0;
    for (let bit = count - 1; bit >= 0; bit--) {
      const from = place + bit;
      value = (value << 1) | (from < 0 ? 0 : (stream[from >> 3] >> (from & 7)) & 1);
    }
    return value;
  };
  const turn = [read(states.log), read(states.log)];
  if (place < 0) throw new Error("weights that are cut short");
  const weights: number[] = [];
  for (let which = 0; weights.length < MOST_SYMBOLS; which = 1 - which) {
    const entry = states.entries[turn[which]];
    weights.push(entry >>> 24);
    turn[which] = (entry & 0xffff) + read((entry >> 16) & 255);
    if (place >= 0) continue;
    weights.push(states.entries[turn[1 - which]] >>> 24);
    return weights;
  }
  throw new Error("too many weights");
}

/** The code of these weights; that of the last symbol is what the others leave. */
function huffmanOf(weights: number[]): Huffman {
  const sum = weights.reduce((all, weight) => all + ((1 << weight) >> 1), 0);
  const bits = highestBit(sum) + 1;
  const rest = (1 << bits) - sum;
  if (!sum || bits > MOST_WEIGHT || rest & (rest - 1) || weights.length >= MOST_SYMBOLS) throw new Error("weights of no code");
  const all = [...weights, highestBit(rest) + 1];
  const entries = new Uint16Array(1 << bits);
  let at = 0;
  for (let weight = 1; weight <= bits; weight++) {
    all.forEach((own, symbol) => {
      if (own === weight) entries.fill((symbol << 8) | (bits + 1 - weight), at, (at += 1 << (weight - 1)));
    });
  }
  return { bits, entries };
}

/** How many bits a stream has that is read backwards: the highest bit that is set marks its end. */
export function lastBit(stream: Uint8Array): number {
  const last = stream[stream.length - 1];
  if (!last) throw new Error("a stream without its end");
  return 8 * (stream.length - 1) + highestBit(last);
}

/** Read `to - from` symbols into `out` from the stream that lies in `view` at `start`, backwards to its beginning. */
export function unhuffman(
  { bits, entries }: Huffman, view: DataView, start: number, size: number, out: Uint8Array, from: number, to: number,
): void {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + start, size);
  const mask = (1 << bits) - 1;
  let place = lastBit(bytes);
  let at = from;
  while (at + 1 < to && place >= 24) {
    const first = (place >> 3) - 3;
    const word = view.getUint32(start + first, true);
    let held = 24 + (place & 7);
    let entry = entries[(word >>> (held - bits)) & mask];
    out[at] = entry >> 8;
    held -= entry & 255;
    entry = entries[(word >>> (held - bits)) & mask];
    out[at + 1] = entry >> 8;
    at += 2;
    place = 8 * first + held - (entry & 255);
  }
  while (at < to) {
    let value = 0;
    for (let bit = place - 1; bit >= place - bits; bit--) value = (value << 1) | (bit < 0 ? 0 : (bytes[bit >> 3] >> (bit & 7)) & 1);
    const entry = entries[value];
    out[at++] = entry >> 8;
    place -= entry & 255;
  }
  if (place !== 0) throw new Error("a Huffman stream of another length");
}
