// Who the feature is: its number, what it fires on, its measures (each with its definition), its flags, in words.

import { useLayoutEffect, useState } from "preact/hooks";
import { count, percent, three } from "../shared/format";
import { Term } from "../shared/terms";
import { inQuotes } from "../shared/tokens";
import type { Feature } from "./answers";

interface StepperProps {
  feature: number;
  /** How many features there are. */
  d_sae: number;
  onFeature: (feature: number) => void;
  onStep: (step: 1 | -1) => void;
  /** Why it is off. */
  off?: string | undefined;
}

/** Previous, a number, next. A number that does not exist is said to be none, and the field goes back. */
export function Stepper({ feature, d_sae, onFeature, onStep, off }: StepperProps) {
  const [refusal, setRefusal] = useState<string | null>(null);
  useLayoutEffect(() => setRefusal(null), [feature]); // once another one is shown, it has served
  return (
    <form
      class="sw-fd-stepper"
      aria-label="Choose a feature"
      onSubmit={(event) => {
        event.preventDefault();
        const field = event.currentTarget.elements.namedItem("feature") as HTMLInputElement;
        const typed = field.value.trim().replace(/^#/, "");
        const wanted = /^\d+$/.test(typed) ? Number(typed) : null;
        const exists = wanted !== null && wanted < d_sae;
        const sentence = `There is no feature #${typed}: this SAE has features 0 to ${d_sae - 1}.`;
        setRefusal(exists || typed === "" ? null : sentence);
        field.value = String(exists ? wanted : feature);
        if (exists) onFeature(wanted);
      }}
    >
      <span class="sw-row sw-fd-steps">
        <button class="sw-button" type="button" disabled={off !== undefined} title={off ?? "previous feature (k)"} onClick={() => onStep(-1)}>
          {"\u25c2"} k
        </button>
        <label class="sw-label sw-muted">
          #
          <input
            class="sw-input sw-mono sw-fd-number"
            name="feature"
            inputMode="numeric"
            autocomplete="off"
            key={feature}
            defaultValue={String(feature)}
            aria-label="Feature number"
            disabled={off !== undefined}
            title={off}
            onFocus={(event) => event.currentTarget.select()}
            onInput={() => setRefusal(null)}
            onKeyDown={(event) => {
              event.stopPropagation(); // the notebook has plans of its own for Enter
              if (event.key !== "Enter") return;
              event.preventDefault();
              event.currentTarget.form?.requestSubmit();
            }}
          />
        </label>
        <button class="sw-button" type="button" disabled={off !== undefined} title={off ?? "next feature (j)"} onClick={() => onStep(1)}>
          j {"\u25b8"}
        </button>
      </span>
      {refusal && <p class="sw-status sw-status-error sw-fd-refusal" role="alert">{refusal}</p>}
    </form>
  );
}

export function Measures({ feature }: { feature: Feature }) {
  return (
    <p class="sw-row sw-fd-measures">
      <span><Term name="density" /> <b>{percent(feature.density)}</b></span>
      <span><Term name="max" /> <b>{three(feature.max)}</b></span>
      <span><Term name="mean" /> <b>{three(feature.mean)}</b></span>
      {feature.decoder_norm !== null && <span><Term name="decoder norm" /> <b>{three(feature.decoder_norm)}</b></span>}
      {feature.enc_dec_cosine !== null && (
        <span><Term name="encoder/decoder cosine" /> <b>{three(feature.enc_dec_cosine)}</b></span>
      )}
      <span><b>{count(feature.n_tokens)}</b> <Term name="tokens scanned" /></span>
    </p>
  );
}

/** The picture in a sentence. */
export function inWords(feature: Feature): string {
  if (feature.count === 0) return `Silent on all ${count(feature.n_tokens)} tokens scanned.`;
  const onto = feature.tokens.slice(0, 3).map((token, i) => {
    const share = feature.shares[i];
    return share === undefined ? inQuotes(token) : `${inQuotes(token)} (${percent(share)}${i === 0 ? " of its activation" : ""})`;
  });
  const raises = feature.positive[0] && `raises ${inQuotes(feature.positive[0])} most`;
  const lowers = feature.negative[0] && `lowers ${inQuotes(feature.negative[0])} most`;
  const effect = [raises, lowers].filter(Boolean).join(", ");
  return `Active on ${count(feature.count)} tokens, mostly on ${onto.join(", ")}${effect ? `; ${effect}` : ""}.`;
}
