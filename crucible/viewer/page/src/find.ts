// Tokens by their id, or by their text.

import type { View } from "./view";
import { quoted } from "./words";

/** A token that is shown, by its id, or by its text: the whole of it, its beginning, or any part; -1 if none fits. */
export function findToken(view: View, said: string, isShown: (token: number) => boolean): number {
  const wanted = said.trim();
  if (!wanted) return -1;
  if (/^\d+$/.test(wanted)) {
    const at = view.ids.indexOf(Number(wanted));
    if (isShown(at)) return at;
  }
  const texts = view.texts ?? [];
  const small = wanted.toLowerCase();
  const ways = [
    (shown: string) => shown === said,
    (shown: string) => shown.trim() === wanted,
    (shown: string) => shown.trim().toLowerCase().startsWith(small),
    (shown: string) => shown.toLowerCase().includes(small),
  ];
  for (const way of ways) {
    const at = texts.findIndex((shown, token) => isShown(token) && way(shown));
    if (at >= 0) return at;
  }
  return -1;
}

/** Ids and texts of tokens that are shown and fit what was typed so far, at most so many. */
export function suggestions(view: View, said: string, most: number, isShown: (token: number) => boolean): [string, string][] {
  const wanted = said.trim().toLowerCase();
  const made: [string, string][] = [];
  for (let token = 0; wanted && token < view.tokens && made.length < most; token++) {
    if (!isShown(token)) continue;
    const [id, shown] = [String(view.ids[token]), view.texts?.[token] ?? ""];
    if (id.startsWith(wanted) || shown.toLowerCase().includes(wanted)) made.push([id, shown ? quoted(shown) : `id ${id}`]);
  }
  return made;
}
