// Numbers and names in words.

const GROUPED = new Intl.NumberFormat("en-US");

export function grouped(value: number): string {
  return GROUPED.format(value);
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${grouped(count)} ${count === 1 ? one : many}`;
}

/** A share; 0 and 100 stand for exactly none and all. */
export function percent(share: number): string {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share > 0.99 && share < 1) return "> 99 %";
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/** A token's text between quotation marks, with what cannot be seen made visible. */
export function quoted(text: string): string {
  const shown = text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ | $/g, "␣");
  return `“${shown}”`;
}

/** A number with three digits that say something. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return value === 0 ? "0" : Math.abs(value) >= 1000 ? grouped(Math.round(value)) : Number(value.toPrecision(3)).toString();
}

/** The first sentence of a text, and the rest of it. */
export function firstSentence(text: string): [string, string] {
  const stop = text.indexOf(". ");
  return stop < 0 ? [text, ""] : [text.slice(0, stop + 1), text.slice(stop + 2)];
}
