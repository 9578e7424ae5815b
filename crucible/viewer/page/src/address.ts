// What the address says after #: step, token, frame and range; read before the first picture, written as they change.

import type { Frame } from "./cloud";

export interface Address {
  step: number | null;
  token: number | null;
  frame: Frame | null;
  range: [number, number] | null;
}

const WRITE_MS = 250;

export function readAddress(hash: string): Address {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const frame = said.get("frame");
  const range = /^(\d{1,15})-(\d{1,15})$/.exec(said.get("range") ?? "");
  return {
    step: whole(said.get("step")),
    token: whole(said.get("token")),
    frame: frame === "centred" || frame === "fixed" || frame === "sky" ? frame : null,
    range: range && Number(range[1]) < Number(range[2]) ? [Number(range[1]), Number(range[2])] : null,
  };
}

function whole(text: string | null): number | null {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

let timer = 0;

/** Write it, soon: browsers allow so many changes and no more. */
export function writeAddress(address: Address): void {
  window.clearTimeout(timer);
  timer = window.setTimeout(() => {
    const parts = [`step=${address.step ?? 0}`];
    if (address.token !== null) parts.push(`token=${address.token}`);
    if (address.frame && address.frame !== "centred") parts.push(`frame=${address.frame}`);
    if (address.range) parts.push(`range=${address.range.join("-")}`);
    const hash = `#${parts.join("&")}`;
    if (hash !== location.hash) history.replaceState(null, "", hash);
  }, WRITE_MS);
}
