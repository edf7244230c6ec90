// What one feature fires on most strongly at the snapshot looked at: the examples of all snapshots come in one growing
// answer, so that moving the slider asks nothing and all steps share one scale. The feature stays, and is seen being born.

import { useMemo, useState } from "preact/hooks";
import { type Example, type ExamplesResult, readExamples } from "../feature_dashboard/answers";
import { Examples, type Pointed } from "../feature_dashboard/Examples";
import { Stepper } from "../feature_dashboard/Header";
import { Card } from "../shared/card";
import { count, percent, three } from "../shared/format";
import { useLive, useRequest } from "../shared/host";
import { CopyCode, Scale, Trouble } from "../shared/parts";
import { Term } from "../shared/terms";
import { inQuotes } from "../shared/tokens";
import type { Answer } from "../shared/transport";

export interface TopResult extends ExamplesResult {
  feature: number;
  /** In how many tokens was looked. */
  n_tokens: number;
  /** The share of them that is read; the rest of the answer is empty until it is 1. */
  read: number;
  /** Those done so far, in order. */
  steps: number[];
  /** Examples of each. */
  counts: number[];
}

export interface Top {
  feature: number;
  n_tokens: number;
  read: number;
  steps: number[];
  /** Of each step, strongest first. */
  examples: Example[][];
  /** The strongest activation at each step; 0 where the feature is silent. */
  peaks: number[];
}

export function readTop(answer: Answer<TopResult>): Top {
  const { feature, n_tokens, read, steps, counts } = answer.result;
  const all = readExamples(answer);
  let from = 0;
  const examples = counts.map((n) => all.slice(from, (from += n)));
  return { feature, n_tokens, read, steps, examples, peaks: examples.map((those) => those[0]?.value ?? 0) };
}

/** When it came to be and how strong it grew, in a sentence. */
export function bornOf({ steps, peaks }: Pick<Top, "steps" | "peaks">): string {
  const first = peaks.findIndex((peak) => peak > 0);
  if (first < 0) return "Silent at every snapshot.";
  const best = peaks.indexOf(Math.max(...peaks));
  const born = first === 0 ? "Active from the first snapshot on" : `Silent until step ${count(steps[first - 1]!)}, active at step ${count(steps[first]!)}`;
  const grown = best === first ? `, peak ${three(peaks[best])}` : `, peak ${three(peaks[first])}; strongest at step ${count(steps[best]!)}, peak ${three(peaks[best])}`;
  return `${born}${grown}${peaks.at(-1) === 0 ? "; silent at the last" : ""}.`;
}

/** Which side of a signed feature it is. */
export function sideOf(feature: number, d_sae: number): string {
  return feature < d_sae
    ? `The positive side of feature #${feature}; #${feature + d_sae} is the negative one.`
    : `The negative side of feature #${feature - d_sae}, activations with the sign taken off.`;
}

const OFF = "This page has no kernel, and carries this feature alone.";

interface Props {
  feature: number | null;
  /** Features of the SAE; of those with signed codes twice as many are looked back at. */
  d_sae: number;
  two_sided: boolean;
  n_sampled: number;
  /** What names the SAE in a question. */
  which: { sae?: number };
  /** The SAE of a step as Python. */
  sae: (step: number) => string;
  steps: readonly number[];
  step: number | null;
  /** Whether someone has chosen what to look at: reading the text for nobody would be long. */
  asks: boolean;
  onFeature: (feature: number) => void;
  onStep: (step: 1 | -1) => void;
}

export function TopExamples({ feature, d_sae, two_sided, n_sampled, which, sae, steps, step, asks, onFeature, onStep }: Props) {
  const live = useLive();
  const looks = asks || !live; // a page without a kernel shows what it carries: nothing has to be read
  const asked = useRequest<TopResult>("examples", looks && feature !== null ? { ...which, feature, steps } : null);
  const top = useMemo(() => asked.answer && readTop(asked.answer), [asked.answer]);
  const seen = step ?? steps[steps.length - 1]!;
  if (!live && (asked.error || feature === null)) {
    return <p class="sw-section sw-muted">Off: this page carries no strongest examples. In the notebook, look back at a step and export again.</p>;
  }
  return (
    <div class={`sw-section sw-top ${asked.waiting ? "sw-waiting" : ""}`} role="region" aria-label="Strongest examples" aria-busy={asked.waiting}>
      <div class="sw-row">
        <Stepper feature={feature ?? 0} d_sae={two_sided ? 2 * d_sae : d_sae} onFeature={onFeature} onStep={onStep} off={live ? undefined : OFF} />
        {!live && <span class="sw-label sw-muted">off: this page has no kernel</span>}
        {top && top.steps.length > 0 && <Births top={top} seen={seen} />}
        <span class="sw-spacer" />
        {top && top.steps.length > 0 && <Scale max={Math.max(...top.peaks)} of="max at all snapshots" />}
      </div>
      <Trouble asked={asked} />
      {!looks && <p class="sw-muted">Move the slider, or choose a feature: its strongest examples among {count(n_sampled)} tokens are shown as each snapshot has them.</p>}
      {top && top.read < 1 && (
        <p class="sw-muted" role="status">
          Reading {count(top.n_tokens)} tokens, once: {percent(top.read)}
        </p>
      )}
      {two_sided && feature !== null && <p class="sw-label sw-muted">{sideOf(feature, d_sae)}</p>}
      {live && asks && !top && asked.waiting && <p class="sw-muted" role="status">Reading {count(n_sampled)} tokens, once.</p>}
      {top && top.steps.length > 0 && <At top={top} seen={seen} />}
      {looks && <Dashboard sae={sae(seen)} step={seen} feature={feature} />}
    </div>
  );
}

/** The peak at each snapshot as a small bar, the one looked at in the accent. */
function Births({ top, seen }: { top: Top; seen: number }) {
  const { steps, peaks } = top;
  const max = Math.max(...peaks) || 1;
  const told = steps.map((step, i) => `step ${count(step)}: ${three(peaks[i])}`).join(", ");
  return (
    <span class="sw-row sw-label sw-muted sw-births">
      <Term name="peak" /> at each snapshot
      <svg width={steps.length * 8} height={24} role="img" aria-label={`Peak at each snapshot. ${told}.`}>
        <line class="sw-axis" x1={0} x2={steps.length * 8} y1={23.5} y2={23.5} />
        {peaks.map((peak, i) => {
          const height = peak > 0 ? Math.max(1, (peak / max) * 22) : 0;
          return <rect key={steps[i]} class={steps[i] === seen ? "sw-bar sw-seen" : "sw-bar"} x={i * 8 + 1} y={23 - height} width={6} height={height} />;
        })}
      </svg>
    </span>
  );
}

function At({ top, seen }: { top: Top; seen: number }) {
  const [lastPointed, setPointed] = useState<Pointed | null>(null);
  const place = top.steps.indexOf(seen);
  const examples = top.examples[place];
  if (!examples) return <p class="sw-muted" role="status">Looking at step {count(seen)}.</p>;
  const pointed = lastPointed && examples.includes(lastPointed.example) ? lastPointed : null;
  const max = Math.max(...top.peaks);
  return (
    <>
      <p class="sw-said-top" aria-live="polite">
        {examples.length > 0 ? (
          <>
            #{top.feature} at step {count(seen)}: <Term name="peak" /> <b class="sw-mono">{three(top.peaks[place])}</b> on {inQuotes(examples[0]!.tokens[examples[0]!.peak]!)}
          </>
        ) : (
          `#${top.feature} at step ${count(seen)}: silent on all ${count(top.n_tokens)} tokens`
        )}
        <span class="sw-muted"> {"\u00b7"} {bornOf(top)}</span>
      </p>
      <div class="sw-fd">
        <Examples key={top.feature} examples={examples} width="snippet" max={max} showSpaces={false} more="more of the text" onPoint={setPointed} />
        {pointed && (
          <Card at={pointed.at}>
            <div class="sw-mono">{inQuotes(pointed.example.tokens[pointed.index]!)}</div>
            activation {three(pointed.example.values[pointed.index])}, {percent((pointed.example.values[pointed.index] ?? 0) / max)} of max
          </Card>
        )}
      </div>
    </>
  );
}

/** How all features of that step are had, as Python. */
function Dashboard({ sae, step, feature }: { sae: string; step: number; feature: number | null }) {
  return (
    <div class="sw-row sw-label sw-foot sw-all">
      <span class="sw-muted">
        All features at step {count(step)}, while the run is paused or goes on: <code class="sw-mono">{browserCode(sae, step, feature)}</code>
      </span>
      <CopyCode code={browserCode(sae, step, feature)} />
    </div>
  );
}

export function browserCode(sae: string, step: number, feature: number | null): string {
  const which = feature === null ? "" : `, feature=${feature}`;
  return `sw.FeatureBrowser(sw.FeatureIndex.build(${sae}, model, texts, "step-${step}")${which})`;
}
