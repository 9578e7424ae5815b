// Colours and sizes, from the style sheet: one palette, dark or light as the system is.

export interface Theme {
  isDark: boolean;
  ground: string;
  well: string;
  ink: string;
  soft: string;
  faint: string;
  rule: string;
  accent: string;
  /** The phases of a life, then frozen. */
  phases: string[];
  mark: string;
  flip: string;
  bits: { sign: string; exponent: string; mantissa: string };
  movingFill: string;
  lossLine: string;
  sans: string;
}

const PHASES = ["supernova", "cooling", "stumbling", "frozen"];

export function readTheme(): Theme {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return {
    isDark: matchMedia("(prefers-color-scheme: dark)").matches,
    ground: read("ground"),
    well: read("well"),
    ink: read("ink"),
    soft: read("soft"),
    faint: read("faint"),
    rule: read("rule"),
    accent: read("accent"),
    phases: PHASES.map(read),
    mark: read("mark"),
    flip: read("flip"),
    bits: { sign: read("sign"), exponent: read("exponent"), mantissa: read("mantissa") },
    movingFill: read("moving"),
    lossLine: read("loss"),
    sans: read("sans"),
  };
}

/** The colour of a phase: the last is frozen; a table of more phases than colours uses them again. */
export function phaseColour(theme: Theme, phase: number, count: number): string {
  return phase >= count ? theme.phases[3] : theme.phases[phase % 3];
}

export function rgb(hex: string): [number, number, number] {
  const value = Number.parseInt(hex.slice(1), 16);
  return hex.length === 4
    ? [((value >> 8) & 15) * 17, ((value >> 4) & 15) * 17, (value & 15) * 17]
    : [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

/** A canvas made as sharp as the screen, and its size in CSS pixels. */
export function fit(canvas: HTMLCanvasElement): { ctx: CanvasRenderingContext2D; width: number; height: number; ratio: number } {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const ctx = canvas.getContext("2d")!;
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { ctx, width, height, ratio };
}
