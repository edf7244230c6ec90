// What a searched text matches. The rule stands in saewidgets/features/matching.py; both pass the same cases.

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
