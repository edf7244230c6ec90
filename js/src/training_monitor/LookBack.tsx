// Looking back: a slider over the snapshots of the run, and a prompt as one feature saw it at each of them. The activations
// at all snapshots come in one answer, so that moving the slider asks nothing and all steps share one scale.

import { useMemo } from "preact/hooks";
import { activationShade } from "../shared/colour";
import { count, three } from "../shared/format";
import { type Asked, useLive, usePlace, useTrait } from "../shared/host";
import { Scale, Trouble } from "../shared/parts";
import { PromptForm } from "../shared/prompt";
import { inQuotes, type Token, TokenStrip } from "../shared/tokens";
import { float32, int32 } from "../shared/transport";

export interface History {
  tokens: Token[];
  feature: number;
  steps: number[];
  /** Of a sweep: whose it is. */
  sae?: number;
}

export function LookBack({ steps, step, onStep }: { steps: readonly number[]; step: number | null; onStep: (step: number | null) => void }) {
  const now = steps.length; // the place after the last snapshot
  const at = step === null ? now : steps.indexOf(step);
  const said = step === null ? "now" : `step ${count(step)}`;
  return (
    <div class="sw-row sw-back">
      <label class="sw-label sw-muted sw-grow">
        <span>look back</span>
        <input
          type="range"
          min={0}
          max={now}
          step={1}
          value={at}
          aria-valuetext={said}
          onInput={(event) => onStep(steps[event.currentTarget.valueAsNumber] ?? null)}
        />
      </label>
      <span class="sw-number sw-said-step">{said}</span>
      <button class="sw-button" type="button" disabled={step === null} onClick={() => onStep(null)}>
        back to now
      </button>
    </div>
  );
}

export function Prompt({ asked, step }: { asked: Asked<History>; step: number | null }) {
  const { theme } = usePlace();
  const live = useLive();
  const [prompt, setPrompt] = useTrait<string>("prompt");
  const [feature, setFeature] = useTrait<number | null>("feature");
  const answer = asked.answer;
  const read = useMemo(() => answer && { ...answer.result, values: float32(answer.buffers[0]), strongest: int32(answer.buffers[1]) }, [answer]);
  const row = read ? (step === null ? read.steps.length - 1 : read.steps.indexOf(step)) : -1;
  const value = (index: number) => read!.values[row * read!.tokens.length + index]!;
  const max = read ? read.values.reduce((a, b) => Math.max(a, b), 0) : 0;
  return (
    <div class={`sw-read ${asked.waiting ? "sw-waiting" : ""}`}>
      <PromptForm prompt={prompt} onPrompt={setPrompt} perLine={90} enter="Enter reads it at each snapshot">
        <button class="sw-button" type="submit" disabled={!live} title={live ? "Enter does the same" : "Needs Python"}>
          read {"\u23ce"}
        </button>
      </PromptForm>
      <Trouble asked={asked} />
      {read && row >= 0 && (
        <>
          <div class="sw-row sw-label">
            <span class="sw-title">#{read.feature}</span>
            <span class="sw-muted sw-read-said">
              at step {count(read.steps[row]!)}
              {feature === null && ", the strongest on this prompt at the last snapshot"}
              {live && "; click a token for its strongest feature"}
            </span>
            <Scale max={max} of="max on this prompt, all snapshots" />
          </div>
          <TokenStrip
            tokens={read.tokens}
            shade={(index) => activationShade(value(index), max, theme)}
            describe={(index) => `${inQuotes(read.tokens[index]!)}, activation ${three(value(index))}`}
            label={`Prompt at step ${read.steps[row]!}, coloured by feature ${read.feature}`}
            {...(live ? { onSelect: (index: number | null) => setFeature(index === null ? null : read.strongest[row * read.tokens.length + index]!) } : {})}
          />
        </>
      )}
    </div>
  );
}

/** The SAE that is looked back at, as Python: of signed codes a feature for each sign; of a sweep one by its number. */
export function saeAt(step: number, two_sided: boolean, sae?: number | null): string {
  const one = `run.sae_at(${typeof sae === "number" ? `${sae}, ` : ""}${step})`;
  return two_sided ? `sw.split_signs(${one})` : one;
}

/** The same look at the same snapshot, as Python. */
export function codeOf(sae: string, prompt: string, feature: number | null): string {
  const options = [sae, "model", `prompt=${JSON.stringify(prompt)}`];
  if (feature !== null) options.push(`feature=${feature}`);
  return `sw.TokenHeatmap(${options.join(", ")})`;
}
