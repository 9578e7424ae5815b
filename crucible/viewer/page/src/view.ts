// view.json: what was reckoned in Python. The page only draws it.

export interface Cloud {
  axes: number[][];
  share: number[] | null;
  reach: number;
  box: [number[], number[]];
  axes_of_step: number;
}

export interface Answers {
  phases: string[];
  /** Last step of each token in each phase, -1 if it never was in it. */
  exits: number[][];
  median_exits: number[];
  so_far: boolean;
  freeze: number[];
  median_freeze: number | null;
  verdict: { sentence: string; frozen: boolean; known: boolean; gap: number | null; last_motion: number | null };
  nonfinite: number;
}

export interface View {
  commit: { key: string; steps: number; completed: boolean };
  title: string;
  prefix: string;
  threshold: number;
  norm: string;
  steps: number;
  tokens: number;
  hidden: number;
  ids: number[];
  texts: string[] | null;
  cloud: Cloud | null;
  answers: Answers | null;
  /** Why there are no answers, nor will be. */
  problem?: string;
  state?: "complete" | "copied";
}

export interface Status {
  state: "recording" | "stopped" | "complete" | "copied";
  command: string | null;
}

/** The newest view; an error in words where the server has one. */
export async function fetchView(): Promise<View> {
  const response = await fetch("view.json", { cache: "no-cache" });
  if (!response.ok) throw new Error((await response.text()).trim() || `the server answers ${response.status}`);
  return (await response.json()) as View;
}

/** Whether the writer lives; a published folder has no such file, and says it in view.json. */
export async function fetchStatus(view: View): Promise<Status> {
  if (view.state) return { state: view.state, command: null };
  try {
    const response = await fetch("status.json", { cache: "no-cache" });
    if (response.ok) return (await response.json()) as Status;
  } catch {
    // the server has ended
  }
  return { state: view.commit.completed ? "complete" : "stopped", command: null };
}

/** The phase of a token at a step: the first that it has not left; the number of phases when it is frozen. */
export function phaseAt(answers: Answers, token: number, step: number): number {
  const { exits } = answers;
  for (let phase = 0; phase < exits.length; phase++) if (step <= exits[phase][token]) return phase;
  return exits.length;
}

/** Positions of the tokens, the one that froze first in front; by id among equals. */
export function freezeOrder(answers: Answers | null, tokens: number): Int32Array<ArrayBuffer> {
  const order = Int32Array.from({ length: tokens }, (_, i) => i);
  if (!answers) return order;
  const { freeze } = answers;
  return order.sort((a, b) => freeze[a] - freeze[b] || a - b);
}
