// Every measure has one name and one sentence, shown on hover and on focus.

import type { ComponentChildren } from "preact";
import { useDomId } from "./host";

const DEFINITIONS = {
  density: "The share of scanned tokens on which this feature is active (above zero).",
  max: "The largest activation of this feature on the scanned tokens.",
  mean: "The mean activation over the tokens on which this feature is active.",
  "tokens scanned": "How many tokens the index has read; every count and share refers to them.",
  L0: "The mean number of features active on a token.",
  "explained variance": "1 \u2212 \u03a3\u2016x \u2212 x\u0302\u2016\u00b2 / \u03a3\u2016x \u2212 mean\u2016\u00b2 over the whole set: 1 is a perfect reconstruction.",
  "CE loss recovered": "Where the model's loss with the reconstruction lies between zero ablation (0) and the clean model (1).",
  "dead features": "The share of features that were silent for the whole window given beside the number.",
  "vectors/s": "Activation vectors trained on in a second; reading them from the model is part of the time, so the curve falls where a block of them was read.",
  "skipped steps": "Steps left out because their gradient held NaN or infinities; ten in a row end the run.",
  loss: "The training loss: the squared error of the reconstruction plus the auxiliary terms.",
  "learning rate": "The peak learning rate; the schedule's factor goes on multiplying it.",
  sparsity: "The coefficient of the sparsity penalty; where it warms up, the warm-up's factor goes on multiplying it.",
  k: "How many features may be active on a vector; setting it ends an annealing of k.",
  revive: "Whether the run works on dead features, to make them active again.",
  peak: "The strongest activation of the feature on the text that is looked in, by the SAE of that step.",
  activation: "How strongly the feature fires on this token, on the SAE's own scale: compare it with the feature's max.",
  "decoder norm": "The length of the feature's decoder row: how far one unit of activation moves the model.",
  "encoder/decoder cosine": "How alike the direction that detects the feature is to the direction it writes.",
  "effect on logits": "What one unit of the feature adds to each next-token logit, through the unembedding alone.",
  "similar features": "Other features whose decoder rows point the same way: the cosine of the two rows, nearest first.",
  "active together": "Other features active on the same tokens: n_ab / \u221a(n_a n_b), from counts; 1 means always together.",
  KL: "KL(default \u2016 steered) of the next-token distributions, in nats: 0 means nothing changed.",
  percentiles: "Half of the feature's activations in the index lie below p50, 90 % below p90, 99 % below p99; max is the largest of them.",
  "random direction": "A control: the same length of change along a random direction instead of the feature's own.",
} as const;

export type TermName = keyof typeof DEFINITIONS;

/** A measure's name with its definition. `children` replaces the printed name, never the meaning. */
export function Term({ name, children }: { name: TermName; children?: ComponentChildren }) {
  const id = useDomId();
  return (
    <span class="sw-term" tabIndex={0} aria-describedby={id} onMouseEnter={keepInside} onFocusIn={keepInside}>
      {children ?? name}
      <Tip name={name} id={id} />
    </span>
  );
}

/** The same around a control, which has the focus itself and takes the id of what describes it. */
export function TermOf({ name, children }: { name: TermName; children: (describedBy: string) => ComponentChildren }) {
  const id = useDomId();
  return (
    <span class="sw-term" onMouseEnter={keepInside} onFocusIn={keepInside}>
      {children(id)}
      <Tip name={name} id={id} />
    </span>
  );
}

/** Near the right edge of the widget a definition begins further left: it would be cut there, or widen the page. */
function keepInside({ currentTarget }: { currentTarget: HTMLElement }) {
  const tip = currentTarget.querySelector<HTMLElement>(".sw-tip")!;
  tip.style.left = "0";
  const end = currentTarget.closest(".sw-root")!.getBoundingClientRect().right - 4; // its padding
  const beyond = tip.getBoundingClientRect().right - end;
  if (beyond > 0) tip.style.left = `${-beyond}px`;
}

function Tip({ name, id }: { name: TermName; id: string }) {
  return (
    <span class="sw-tip" role="tooltip" id={id}>
      {DEFINITIONS[name]}
    </span>
  );
}
