// The elements of the page by name, and what is written into them.

import { firstSentence, grouped, percent, plural, quoted, short } from "./words";
import { labelOf, type Answers, type Cloud, type Status, type View } from "./view";
import type { Frame } from "./cloud";

function get<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

export const page = {
  cloud: get<HTMLCanvasElement>("cloud"),
  raster: get<HTMLCanvasElement>("raster"),
  timeline: get<HTMLCanvasElement>("timeline"),
  bits: get<HTMLCanvasElement>("bits"),
  step: get<HTMLInputElement>("step"),
  token: get<HTMLInputElement>("token"),
  matches: get<HTMLDataListElement>("matches"),
  play: get<HTMLButtonElement>("play"),
  back: get<HTMLButtonElement>("back"),
  forward: get<HTMLButtonElement>("forward"),
  lastMotion: get<HTMLButtonElement>("last-motion"),
  nextMotion: get<HTMLButtonElement>("next-motion"),
  follow: get<HTMLButtonElement>("follow"),
  refit: get<HTMLButtonElement>("refit"),
  whole: get<HTMLButtonElement>("whole"),
  speed: get<HTMLSelectElement>("speed"),
  frames: get<HTMLFieldSetElement>("frames"),
  loading: get<HTMLProgressElement>("loading"),
};

/** Write a text where it changed, so that nothing is read aloud twice. */
export function write(id: string, text: string): void {
  const element = get(id);
  if (element.textContent !== text) element.textContent = text;
}

/** Which steps are shown, by their labels; of a run that begins later, or keeps some of its steps, how many states too. */
function stepsOf(view: View, lastRow: number, [first, last]: [number, number]): string {
  const span = (rows: number[]): string => rows.map((row) => grouped(labelOf(view.labels, row))).join(" to ");
  const isPlain = view.labels.first === 0 && !view.labels.list;
  if (first > 0 || last < lastRow) return `steps ${span([first, last])} of ${isPlain ? grouped(lastRow) : span([0, lastRow])}`;
  return isPlain ? plural(lastRow, "step") : `${plural(lastRow + 1, "state")} of steps ${span([0, lastRow])}`;
}

/** Whose page it is; "40 of 3,644 tokens" where a part is shown. */
export function writeHeader(view: View, lastRow: number, shown: [number, number]): void {
  document.title = `${view.title} · crucible view`;
  write("title", view.title);
  const dims = view.hidden ? ` · ${plural(view.hidden, "dimension")}` : "";
  const chosen = view.selection?.tokens ? `${grouped(view.selection.tokens.length)} of ` : "";
  write("facts", `${stepsOf(view, lastRow, shown)} · ${chosen}${plural(view.tokens, "token")}${dims}`);
}

const STATES = { recording: "recording", stopped: "stopped", complete: "complete", copied: "a copy of a run that went on" };

/** Whether the run goes on; of a stopped one the command that resumes it. */
export function writeStatus(status: Status): void {
  const element = get("state");
  element.hidden = false;
  element.className = status.state;
  write("state-word", STATES[status.state]);
  const more = get("state-more");
  if (more.dataset.said === (status.command ?? "")) return;
  more.dataset.said = status.command ?? "";
  more.textContent = "";
  if (!status.command) return;
  const code = document.createElement("code");
  code.textContent = status.command;
  more.append("the writer is gone; ", code, " goes on");
}

export function writeProblem(text: string | null): void {
  const element = get("problem");
  element.hidden = text === null;
  if (text !== null) write("problem", text);
}

export function writeVerdict(view: View): void {
  const sentence = view.answers?.verdict ?? "";
  const [head, rest] = firstSentence(sentence);
  write("verdict-short", head);
  write("verdict-long", rest);
}

/** The four phases with how many tokens are in each; built once, then only the numbers change. */
export function writeLegend(view: View, answers: Answers, counts: number[]): void {
  const { phases: names, so_far: soFar } = answers;
  const list = get("legend");
  const wanted = [...names, soFar ? "still so far" : "frozen"];
  if (list.dataset.names !== wanted.join()) {
    list.dataset.names = wanted.join();
    list.textContent = "";
    wanted.forEach((name, phase) => {
      const [item, dot, count] = ["li", "i", "b"].map((tag) => document.createElement(tag));
      dot.className = phase === names.length ? "p3" : `p${phase % 3}`;
      item.append(dot, `${name} `, count);
      list.append(item);
    });
    const item = document.createElement("li");
    item.className = "bright";
    const said = ["bright: moves now"];
    if (soFar) said.push("phases so far");
    if (view.selection?.tokens) said.push("faint: not selected");
    item.textContent = said.join(" · ");
    list.append(item);
  }
  list.querySelectorAll("b").forEach((element, phase) => {
    const text = grouped(counts[phase] ?? 0);
    if (element.textContent !== text) element.textContent = text;
  });
}

const FRAMES: { [frame in Frame]: string } = {
  centred: "Seen from the centroid, at one scale",
  fixed: "As they lie, at one scale",
  sky: "Directions from the centroid, as a map of the sky",
};

export function cloudWords(cloud: Cloud, frame: Frame, strange: number, hasWay: boolean): string {
  const share = cloud.share;
  const held = (axes: number): string => share!.slice(0, axes).map(percent).join(axes === 2 ? " and " : ", ");
  const axes = frame === "sky" ? Math.min(3, share?.length ?? 0) : Math.min(2, share?.length ?? 0);
  const said = share && axes ? ` Axes: ${held(axes)} of the variance at step ${grouped(cloud.axes_of_step)}.` : "";
  const lost = strange ? ` ${plural(strange, "token")} not drawn: NaN or infinite.` : "";
  const way = frame === "fixed" && hasWay ? ", with the way of the centroid" : "";
  return `${FRAMES[frame]}${way}.${said}${lost}`;
}

export function writeNow(step: number, moving: number, loss: number | null): void {
  write("now-step", `step ${grouped(step)}`);
  write("now-moving", moving < 0 ? "" : `${grouped(moving)} moving`);
  write("now-loss", loss === null || !Number.isFinite(loss) ? "" : `loss ${short(loss)}`);
}

/** Who the chosen token is, and when it moved last; or that none has what was looked for since, if that is `unknown`. */
export function writeToken(view: View, token: number, unknown: string): void {
  const element = get("token-name");
  const id = token < 0 ? "" : String(view.ids[token]);
  const text = token < 0 ? null : (view.texts?.[token] ?? null);
  const said = `${id} ${text}`;
  if (element.dataset.said !== said) {
    element.dataset.said = said;
    const small = document.createElement("small");
    small.textContent = text === null ? "" : `id ${id}`;
    element.replaceChildren(token < 0 ? "none chosen" : text === null ? `id ${id}` : quoted(text), small);
  }
  const life = token < 0 ? "Click on one, or find it by id or text." : lifeOf(view, token);
  write("token-life", unknown ? `No token has the id or text “${unknown}”.` : life);
}

function lifeOf(view: View, token: number): string {
  const { answers } = view;
  if (!answers) return "";
  const step = answers.freeze[token];
  const left = answers.phases
    .slice(0, -1)
    .map((name, phase) => (answers.exits[phase][token] < 0 ? null : `${name} until ${grouped(answers.exits[phase][token])}`))
    .filter((text): text is string => text !== null);
  // not "froze": it may have moved at the last step, or go on after the part that is shown
  const end = step < 0 ? "never moved" : `moved until ${grouped(step)}`;
  return [answers.so_far ? `${end} so far` : end, ...left].join(" · ");
}

export function writeFlips(step: number, flipped: number, where: number, weights: number, all: number): void {
  const found = `${grouped(flipped)} of ${grouped(all)} bits flipped, in ${grouped(where)} of ${plural(weights, "weight")}.`;
  const none = step === 0 ? `${grouped(all)} bits, as the run began.` : `None of ${grouped(all)} bits flipped.`;
  write("bits-text", flipped ? found : none);
}

/** What raster and timeline show, in words; `range` is null for all steps, `loss` its least and largest value, if it is known. */
export function writeTime(view: View, tokens: number, range: [number, number] | null, loss: [number, number] | null): void {
  write("range-text", range ? `steps ${range.map(grouped).join(" to ")}` : "drag over the curve to look closer");
  const { answers } = view;
  const so = answers?.so_far ? " so far" : "";
  const last = answers?.last_motion ?? null;
  const middle = answers?.median_freeze ?? null;
  const half = middle === null || middle < 0 ? "" : ` Half of the tokens made their last move${so} by step ${grouped(middle)}.`;
  const end = !answers ? "" : last === null ? " Nothing moved." : ` The last motion${so} is at step ${grouped(last)}.`;
  write("raster-text", `A line for each of ${plural(tokens, "token")}, the first to freeze on top.${half}`);
  const span = loss && loss[0] <= loss[1] ? `, and the loss, from ${short(loss[0])} to ${short(loss[1])}` : "";
  write("timeline-text", `How many tokens move at each step${span}.${end}`);
}
