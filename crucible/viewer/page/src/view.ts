// view.json: what was reckoned in Python. The page only draws it.

import type { Norm } from "./protocol";

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
  so_far: boolean;
  freeze: number[];
  median_freeze: number | null;
  last_motion: number | null;
  verdict: string;
}

export interface View {
  commit: { key: string; steps: number; completed: boolean };
  title: string;
  prefix: string;
  threshold: number;
  norm: Norm;
  /** Whether float32 weights are measured on the lattice of bfloat16. */
  projected: boolean;
  /** Label of the last step. */
  steps: number;
  labels: Labels;
  tokens: number;
  hidden: number;
  ids: number[];
  texts: string[] | null;
  cloud: Cloud | null;
  /** The part that is shown; null for everything. */
  selection: Part | null;
  answers: Answers | null;
  /** Why there are no answers, nor will be. */
  problem?: string;
  state?: "complete" | "copied";
}

/** A part of a run, by position: which tokens (null for all), and the first and last row (null for the newest one). */
export interface Part {
  tokens: number[] | null;
  rows: [number, number | null];
}

/** Labels of the recorded steps: first, first + 1, ..., or a list where some are missing. */
export interface Labels {
  first: number;
  list: number[] | null;
}

/** The label of a row. Rows that were committed after the list was made go on as its last two do. */
export function labelOf(labels: Labels, row: number): number {
  const { first, list } = labels;
  if (!list?.length) return first + row;
  const last = list.length - 1;
  return row <= last ? list[row] : list[last] + (row - last) * (last > 0 ? list[last] - list[last - 1] : 1);
}

/** The last row whose label is not above this one; 0 if there is none. */
export function rowOf(labels: Labels, label: number): number {
  const { first, list } = labels;
  if (!list?.length) return Math.max(0, label - first);
  let [low, high] = [0, list.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (list[middle] <= label) low = middle;
    else high = middle - 1;
  }
  return low;
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

/** The phase of a token at a step (its label): the first that it has not left; the number of phases when it is frozen. */
export function phaseAt(answers: Answers, token: number, step: number): number {
  const { exits } = answers;
  for (let phase = 0; phase < exits.length; phase++) if (step <= exits[phase][token]) return phase;
  return exits.length;
}

/** Positions of the tokens that are shown, the one that froze first in front; by id among equals. */
export function freezeOrder(answers: Answers | null, view: View): Int32Array<ArrayBuffer> {
  const order = Int32Array.from(view.selection?.tokens ?? Array(view.tokens).keys());
  if (!answers) return order;
  const { freeze } = answers;
  return order.sort((a, b) => freeze[a] - freeze[b] || a - b);
}
