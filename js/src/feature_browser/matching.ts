// What a searched text matches, and in which order. The rule stands in saewidgets/features/matching.py; both pass the same
// cases.

import type { Token } from "../shared/tokens";

// What Python's str.strip takes: other than String.trim, the separators U+001C to U+001F and U+0085, and no U+FEFF.
const SPACES = String.raw`(?:[^\S\ufeff]|[\u001c-\u001f\u0085])+`;
const AROUND = new RegExp(`^${SPACES}|${SPACES}$`, "g");

/** A text without the spaces around it and without case. */
export function bare(text: string): string {
  return text.toLowerCase().replace(AROUND, "");
}

/** How closely a token matches a text, of which `wanted` is the bare one; 0 if it does not. */
export function closeness(text: string, wanted: string, { text: shown, special = false, hex = false }: Token): number {
  if (shown === text) return 1;
  if (special || hex || wanted === "") return 0;
  if (!shown.toLowerCase().includes(wanted)) return 0;
  return bare(shown) === wanted ? 0.8 : 0.4;
}

/** The feature that a text names, whether there is one or not; `only` if it is no text as well ("#412"). */
export function numberIn(text: string): { number: number | null; only: boolean } {
  const named = /^(#?)([0-9]{1,15})$/.exec(bare(text));
  return { number: named ? Number(named[2]) : null, only: named?.[1] === "#" };
}

/** A token, and the features that fire on it with their scores. */
export interface Scored {
  token: Token;
  features: ArrayLike<number>;
  scores: ArrayLike<number>;
}

/** The features that a text finds, best first; before them the one it names, of those there are. */
export function ranked(text: string, d_sae: number, tokens: Iterable<Scored>): number[] {
  const { number, only } = numberIn(text);
  const named = number !== null && number < d_sae ? [number] : [];
  if (only) return named;
  const wanted = bare(text);
  const best = new Map<number, number>();
  for (const { token, features, scores } of tokens) {
    const close = closeness(text, wanted, token);
    if (close === 0) continue;
    for (let i = 0; i < features.length; i++) {
      const feature = features[i]!;
      best.set(feature, Math.max(best.get(feature) ?? 0, close * scores[i]!));
    }
  }
  for (const feature of named) best.delete(feature);
  return [...named, ...[...best].sort(([a, x], [b, y]) => y - x || a - b).map(([feature]) => feature)];
}
