// What a run's numbers say in words.

import { count, duration, percent, short, three } from "../shared/format";
import type { Mark, Rows } from "./rows";

/** How far anything that runs is. */
export interface Moving {
  state: "running" | "paused" | "finished" | "stopped" | "failed";
  step: number;
  n_steps: number;
  tokens: number;
  n_tokens: number;
  epoch: number | null;
  n_epochs: number | null;
  vectors_per_second: number | null;
  seconds_left: number | null;
  error: string | null;
}

export interface Progress extends Moving {
  rows: number;
  skipped_steps: number;
  /** How many changes were made while it ran. */
  events: number;
  knobs: Knobs;
}

/** What can be changed while it runs; null where the architecture has none, or (lr) where it is yet to be chosen. */
export interface Knobs {
  lr: number | null;
  sparsity: number | null;
  k: number | null;
  revive: boolean | null;
}

export interface About {
  architecture: string;
  d_in: number;
  d_sae: number;
  /** Whether codes have signs: two features are then looked back at for each. */
  two_sided: boolean;
  hook_name: string | null;
  model_name: string | null;
  /** Whether CE loss recovered is among what is measured. */
  measures_ce_loss: boolean;
  /** Whether there is a model to read a prompt with. */
  reads: boolean;
  /** Tokens that a feature's strongest examples are looked up in; null where there is no text. */
  n_sampled: number | null;
}

export function isOver({ state }: Moving): boolean {
  return state === "finished" || state === "stopped" || state === "failed";
}

/** One sentence: what is going on, and what can be done. */
export function stateOf(progress: Progress, seconds: number | null): string {
  const { state, step, n_steps, error } = progress;
  const took = seconds === null ? "" : ` in ${duration(seconds)}`;
  switch (state) {
    case "running":
      return step === 0 ? "Starting: the first activations are being read." : "Training. run.sae is a copy of what it has learned so far.";
    case "paused":
      return `Paused at step ${count(step)}. run.sae is a copy of what it has learned so far.`;
    case "finished":
      return `Finished: ${count(step)} steps${took}. The trained SAE is run.sae.`;
    case "stopped":
      return `Stopped at step ${count(step)} of ${count(n_steps)}. run.sae holds what it had learned by then.`;
    case "failed":
      return `Failed at step ${count(step)}: ${error ?? "run.error says why."}`;
  }
}

/**
 * "epoch 3 of 4.1": rounds over the text, the current one counted from 1, and in the last, which is a part of one, how far it is:
 * "epoch 4.1 of 4.1"; "0.6 of an epoch" where there is less than one.
 */
export function epochOf({ epoch, n_epochs }: Moving): string | null {
  if (epoch === null || n_epochs === null) return null;
  if (n_epochs < 1) return `${n_epochs < 0.1 ? n_epochs.toPrecision(1) : n_epochs.toFixed(1)} of an epoch`;
  const all = Number(n_epochs.toFixed(1));
  const round = Math.floor(epoch) + 1;
  return `epoch ${round <= all ? round : Number(epoch.toFixed(1))} of ${all}`;
}

/** The row being read, in one line, with what was changed since the row before it. */
export function rowOf(rows: Rows, row: number, marks: readonly Mark[]): string {
  const at = (name: string) => rows.columns[name]?.[row] ?? Number.NaN;
  const before = row > 0 ? rows.columns.step![row - 1]! : -1;
  const changed = marks.filter(({ step }) => step >= before && step < at("step"));
  const since = changed.length ? `; changed before it: ${changesOf(changed)}` : "";
  return `step ${count(at("step"))}, ${short(at("tokens"))} tokens, ${duration(at("seconds"))}${since}`;
}

const SPOKEN = 10; // changes that a sentence names, the latest

/** Changes in a sentence, the latest of many. */
export function changesOf(marks: readonly Mark[]): string {
  const before = Math.max(0, marks.length - SPOKEN);
  return `${before ? `${count(before)} changes, then ` : ""}${marks.slice(before).map(markOf).join(", ")}`;
}

function markOf({ step, label }: Mark): string {
  return `${label} at step ${count(step)}`;
}

/** What the picture says, for those who do not see it. */
export function pictureOf(rows: Rows, marks: readonly Mark[], measures_ce_loss: boolean): string {
  const changed = marks.length ? ` Changed while it ran: ${changesOf(marks)}.` : "";
  if (rows.n === 0) return `No step has been logged yet.${changed}`;
  const ends = (name: string) => {
    const known = Array.from(rows.columns[name] ?? []).filter(Number.isFinite);
    return [known[0], known[known.length - 1]] as const;
  };
  const [evFrom, evTo] = ends("explained_variance");
  const [, l0] = ends("l0");
  const [, ce] = ends("ce_loss_recovered");
  const [, dead] = ends("dead_fraction");
  return (
    `Explained variance went from ${three(evFrom)} to ${three(evTo)}; L0 ${three(l0)}; ` +
    `${measures_ce_loss ? `CE loss recovered ${ce === undefined ? "not measured yet" : three(ce)}; ` : ""}` +
    `${percent(dead)} of the features dead${rows.deadWindow ? `, silent for ${short(rows.deadWindow)} tokens` : ""}.${changed}`
  );
}
