// Keys, buttons, pointers: what a person does, told to the page.

import type { App } from "./app";
import { page } from "./page";
import type { Frame } from "./cloud";
import { suggestions } from "./find";

const DRAG_PX = 5;
const MOST_MATCHES = 24;

export function connect(app: App): void {
  connectButtons(app);
  connectPointers(app);
  connectFinder(app);
  document.addEventListener("keydown", (event) => onKey(app, event));
  window.addEventListener("hashchange", () => app.readAddress());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => app.onTheme());
  const watcher = new ResizeObserver(() => app.onResize());
  for (const canvas of [page.cloud, page.raster, page.timeline, page.bits.parentElement!]) watcher.observe(canvas);
}

function connectButtons(app: App): void {
  page.play.onclick = () => app.play(!app.isPlaying);
  page.back.onclick = () => app.go(app.step - 1);
  page.forward.onclick = () => app.go(app.step + 1);
  page.lastMotion.onclick = () => app.goToMotion(-1);
  page.nextMotion.onclick = () => app.goToMotion(1);
  page.follow.onclick = () => app.follow(!app.isFollowing);
  page.refit.onclick = () => app.refit();
  page.whole.onclick = () => app.showAll();
  page.speed.onchange = () => (app.speed = Number(page.speed.value));
  page.step.oninput = () => app.go(Number(page.step.value));
  page.frames.onchange = (event) => app.setFrame((event.target as HTMLInputElement).value as Frame);
}

function connectPointers(app: App): void {
  page.cloud.onclick = (event) => app.chooseAt(event.offsetX, event.offsetY);
  page.raster.onclick = (event) => app.chooseInRaster(event.offsetX, event.offsetY);
  let start: number | null = null;
  page.timeline.onpointerdown = (event) => {
    start = event.offsetX;
    page.timeline.setPointerCapture(event.pointerId);
  };
  page.timeline.onpointermove = (event) => {
    if (start === null || Math.abs(event.offsetX - start) < DRAG_PX) return;
    app.picked = [app.stepAtX(start), app.stepAtX(event.offsetX)];
    app.touch();
  };
  page.timeline.onpointerup = (event) => {
    if (start === null) return;
    start = null;
    const picked = app.picked;
    app.picked = null;
    if (!picked) app.goAt(event.offsetX);
    else app.setRange(Math.min(...picked), Math.abs(picked[1] - picked[0]));
  };
  page.timeline.onpointercancel = () => {
    start = app.picked = null;
    app.touch();
  };
  page.timeline.ondblclick = () => app.showAll();
}

/** The field where a token is looked for: suggestions while typing, the best one on Enter. */
function connectFinder(app: App): void {
  const look = (): void => {
    const said = page.token.value;
    if (!said.trim()) return;
    page.token.setAttribute("aria-invalid", String(!app.find(said)));
  };
  page.token.onchange = look;
  page.token.onkeydown = (event) => {
    if (event.key === "Enter") look();
    if (event.key === "Escape") page.token.blur();
  };
  page.token.oninput = () => {
    const options = suggestions(app.view, page.token.value, MOST_MATCHES, (token) => app.run.isShown(token)).map(([id, text]) => {
      const option = document.createElement("option");
      option.value = id;
      option.label = text;
      return option;
    });
    page.matches.replaceChildren(...options);
  };
}

const KEYS: Record<string, (app: App, event: KeyboardEvent) => void> = {
  ArrowLeft: (app, event) => app.go(app.step - (event.shiftKey ? 10 : 1)),
  ArrowRight: (app, event) => app.go(app.step + (event.shiftKey ? 10 : 1)),
  Home: (app) => app.go(app.first),
  End: (app) => app.go(app.last),
  PageUp: (app) => app.goToMotion(-1),
  PageDown: (app) => app.goToMotion(1),
  " ": (app) => app.play(!app.isPlaying),
  "+": (app) => app.zoom(0.5),
  "=": (app) => app.zoom(0.5),
  "-": (app) => app.zoom(2),
  "0": (app) => app.showAll(),
  "[": (app) => app.chooseNext(-1),
  "]": (app) => app.chooseNext(1),
  c: (app) => app.setFrame("centred"),
  x: (app) => app.setFrame("fixed"),
  s: (app) => app.setFrame("sky"),
  f: (app) => app.follow(!app.isFollowing),
};

/** Keys belong to the page unless an element needs them itself. */
function onKey(app: App, event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey || isBusy(target, event.key)) return;
  event.preventDefault();
  act(app, event);
}

function isBusy(target: HTMLElement, key: string): boolean {
  if (target instanceof HTMLSelectElement) return true;
  if (target instanceof HTMLInputElement && target !== page.step) return target.type !== "radio" || key.startsWith("Arrow") || key === " ";
  return key === " " && (target instanceof HTMLButtonElement || target.tagName === "SUMMARY");
}
