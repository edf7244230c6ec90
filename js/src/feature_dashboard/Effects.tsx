// What the feature writes: the tokens whose logits it raises and lowers most, and the histogram over the vocabulary.

import { alike, signed } from "../shared/format";
import { Histogram } from "../shared/histogram";
import { Bar } from "../shared/parts";
import { Term } from "../shared/terms";
import { inQuotes } from "../shared/tokens";
import type { Effect, Feature } from "./answers";

export function Effects({ feature }: { feature: Feature }) {
  const { positive, negative, logits } = feature;
  const values = [...positive, ...negative].map(({ value }) => value);
  const column = { most: Math.max(1e-9, ...values.map(Math.abs)), format: alike(values) };
  return (
    <section aria-label="Effect on logits">
      {logits && (
        <Histogram
          counts={logits.counts}
          edges={logits.edges}
          label="effect on logits"
          caption={<Term name="effect on logits" />}
          signed
          height={40}
        />
      )}
      {!logits && <p class="sw-label"><Term name="effect on logits" /></p>}
      <div class="sw-fd-effects">
        <Column effects={positive} {...column} label="Tokens made more likely" sign="pos" />
        <Column effects={negative} {...column} label="Tokens made less likely" sign="neg" />
      </div>
    </section>
  );
}

/** With spaces that no line breaks at: what is too long for its column breaks inside the word. */
function unbroken(text: string): string {
  return text.replaceAll(" ", "\u00a0");
}

interface ColumnProps {
  effects: Effect[];
  most: number;
  format: (value: number) => string;
  label: string;
  sign: "pos" | "neg";
}

function Column({ effects, most, format, label, sign }: ColumnProps) {
  return (
    <ol class="sw-fd-column" aria-label={label}>
      {effects.map((effect, i) => (
        <li key={i} title={`${inQuotes(effect)} ${signed(effect.value)}`}>
          <span class="sw-mono sw-fd-effect">{unbroken(inQuotes(effect))}</span>
          <Bar share={Math.abs(effect.value) / most} sign={sign} />
          <span class="sw-number">{signed(effect.value, format)}</span>
        </li>
      ))}
      {effects.length === 0 && <li class="sw-muted">none</li>}
    </ol>
  );
}
