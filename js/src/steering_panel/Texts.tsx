// What the model writes by itself and what it writes under the edits, side by side, with the same random numbers.

import type { ComponentChildren } from "preact";
import type { Asked } from "../shared/host";
import { inQuotes, type Token, TokenStrip } from "../shared/tokens";
import { divergence } from "./edits";

export interface Written {
  prompt: Token[];
  tokens: Token[];
  ids: number[];
  text: string;
  /** Why the text is no longer than it is. */
  ended: string | null;
  /** Another question has ended this answer: nothing else is in it. */
  superseded?: true;
}

type Text = Asked<Written>;

interface Props {
  plain: Text;
  steered: Text;
  control: Text | null;
  edited: boolean;
}

const MUTED = { background: "transparent", color: "var(--sw-muted)" };

export function Texts({ plain, steered, control, edited }: Props) {
  const parts = partOf(plain, steered);
  return (
    <div class="sw-texts" style={{ "--sw-columns": control ? 3 : 2 }}>
      <Column name="default" asked={plain} mark={parts} />
      <Column name="steered" asked={steered} mark={parts}>
        {!edited && "no edit: the same text"}
      </Column>
      {control && (
        <Column name="random direction" asked={control} mark={partOf(plain, control)} />
      )}
    </div>
  );
}

export function partOf(a: Text, b: Text): number | null {
  const [one, other] = [of(a), of(b)];
  return one && other ? divergence(one.ids, other.ids, !a.waiting && !b.waiting) : null;
}

function of(asked: Text): Written | undefined {
  const written = asked.answer?.result;
  return written?.superseded ? undefined : written;
}

/** Where the texts part, in one sentence. */
export function partingOf(plain: Text, steered: Text): string {
  const at = partOf(plain, steered);
  const [a, b] = [of(plain), of(steered)];
  if (!a || !b) return "";
  const named = (written: Written) => (written.tokens[at!] ? inQuotes(written.tokens[at!]!) : "its end");
  if (at !== null) return `The texts part at token ${at + 1}: ${named(a)}, steered ${named(b)}.`;
  return plain.waiting || steered.waiting ? "" : "The texts are the same.";
}

function Column({ name, asked, mark, children }: { name: string; asked: Text; mark: number | null; children?: ComponentChildren }) {
  const written = of(asked);
  // BOS begins both texts and says nothing about them.
  const prompt = written?.prompt.filter(({ special }) => !special) ?? [];
  const n = prompt.length;
  const note = asked.waiting ? "writing\u2026" : (written?.ended ?? children);
  return (
    <section class="sw-column" aria-label={`${name} text`} aria-busy={asked.waiting}>
      <div class="sw-caption">
        <span>{name}</span>
        <span class="sw-muted">{note}</span>
      </div>
      {asked.error && <p class="sw-status">{asked.error}</p>}
      {written && !asked.error && (
        <TokenStrip
          tokens={[...prompt, ...written.tokens]}
          shade={(i) => (i < n ? MUTED : null)}
          mark={mark === null ? null : n + mark}
          label={`${name}: ${written.text}`}
        />
      )}
    </section>
  );
}
