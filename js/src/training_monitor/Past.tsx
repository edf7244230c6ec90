// Looking back, in one piece: the slider, the numbers of the snapshot, the prompt and the examples. A run has one; of a sweep it
// is the chosen SAE's, whose number then goes with every question.

import { nearestRow } from "../shared/curve";
import { type Asked, useLive, useRequest, useTrait } from "../shared/host";
import { Health } from "./Health";
import { codeOf, type History, LookBack, Prompt, saeAt } from "./LookBack";
import type { Measure } from "./measures";
import type { Rows } from "./rows";
import { TopExamples } from "./TopExamples";

/** Whose past it is. */
export interface Subject {
  d_sae: number;
  two_sided: boolean;
  /** Whether there is a model to read a prompt with. */
  reads: boolean;
  /** Tokens that a feature's strongest examples are looked up in; null where there is no text. */
  n_sampled: number | null;
  /** Its number in a sweep; null: a run's only one; undefined: none is chosen. */
  sae: number | null | undefined;
}

interface Past {
  subject: Subject;
  steps: readonly number[];
  /** The snapshot looked at; null: not looking back. */
  step: number | null;
  history: Asked<History>;
  /** The feature that is looked at, chosen or the strongest on the prompt. */
  shown: number | null;
  /** To the next feature or the one before; undefined where there are no examples of one. */
  walk: ((by: 1 | -1) => void) | undefined;
  /** The same look as Python; undefined while not looking back. */
  code: string | undefined;
}

/** What is looked back at, as it is asked for. */
export function usePast(subject: Subject): Past {
  const [snapshots] = useTrait<number[]>("_snapshots");
  const [step] = useTrait<number | null>("snapshot_step");
  const [prompt] = useTrait<string>("prompt");
  const [feature, setFeature] = useTrait<number | null>("feature");
  const { sae, two_sided } = subject;
  const steps = sae === undefined ? [] : snapshots;
  const asked = useRequest<History>("history", subject.reads && steps.length > 0 ? { ...naming(sae), prompt, feature, steps } : null);
  // an answer stays until the next one comes, but never under the number of another SAE
  const history = asked.answer && asked.answer.result.sae !== naming(sae).sae ? { ...asked, answer: null } : asked;
  const shown = feature ?? history.answer?.result.feature ?? null;
  const d_looked = subject.d_sae * (two_sided ? 2 : 1);
  const looksUp = subject.n_sampled !== null && steps.length > 0;
  return {
    subject,
    steps,
    step: steps.length > 0 ? step : null,
    history,
    shown,
    walk: looksUp ? (by) => setFeature(((shown ?? -1) + by + d_looked) % d_looked) : undefined,
    code: step === null || steps.length === 0 ? undefined : codeOf(saeAt(step, two_sided, sae), prompt, feature),
  };
}

export function PastView({ past, rows, measures }: { past: Past; rows: Rows; measures: readonly Measure[] }) {
  const [, setStep] = useTrait<number | null>("snapshot_step");
  const [feature, setFeature] = useTrait<number | null>("feature");
  const { subject, steps, step, history, shown, walk } = past;
  const row = step === null ? null : nearestRow(rows.columns.step ?? new Float32Array(), step);
  const live = useLive();
  if (steps.length === 0) return null;
  if (!live && typeof subject.sae === "number" && history.error) {
    return <p class="sw-section sw-muted">Off: this page carries no look back at SAE {subject.sae}. In the notebook, choose it, look back at a step and export again.</p>;
  }
  return (
    <>
      <LookBack steps={steps} step={step} onStep={setStep} />
      {row !== null && <Health rows={rows} row={row} measures={measures} />}
      {subject.reads && <Prompt asked={history} step={step} />}
      {walk && (
        <TopExamples
          key={subject.sae}
          feature={shown}
          d_sae={subject.d_sae}
          two_sided={subject.two_sided}
          n_sampled={subject.n_sampled!}
          which={naming(subject.sae)}
          sae={(at) => saeAt(at, subject.two_sided, subject.sae)}
          steps={steps}
          step={step}
          asks={step !== null || feature !== null}
          onFeature={setFeature}
          onStep={walk}
        />
      )}
    </>
  );
}

/** The part of a question that names the SAE. */
function naming(sae: number | null | undefined): { sae?: number } {
  return typeof sae === "number" ? { sae } : {};
}
