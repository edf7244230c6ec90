// The answers to "feature" and "examples", as the views ask them.

import type { Range } from "../shared/histogram";
import { type Answer, float32, int32, uint16 } from "../shared/transport";
import type { Token } from "../shared/tokens";

/** Which examples: a random draw, the strongest, or one of the intervals (0 is the highest). */
export type Group = "random" | "top" | number;
export type Width = "snippet" | "sentence" | "full";

export interface Interval {
  low: number;
  high: number;
  /** Of the feature's activations. */
  share: number;
}

export interface Effect extends Token {
  value: number;
}

export interface Related {
  feature: number;
  value: number;
  tokens: Token[];
}

export interface RelatedResult {
  /** By cosine of the decoder rows. */
  decoder: Related[];
  /** Active on the same tokens. */
  coactive: Related[];
}

export interface FeatureResult {
  feature: number;
  /** Which SAE it is of, in a line. */
  source: string;
  n_tokens: number;
  tokens: Token[];
  /** Of its summed activation, token by token. */
  shares: number[];
  density: number;
  count: number;
  max: number;
  mean: number;
  decoder_norm: number | null;
  enc_dec_cosine: number | null;
  /** Sentences. */
  flags: string[];
  intervals: Interval[];
  positive: Effect[];
  negative: Effect[];
}

interface Bars {
  counts: Int32Array;
  edges: Float32Array;
}

export interface Feature extends FeatureResult {
  histogram: Bars;
  /** Its effect on every token of the vocabulary; `null` where the index holds none. */
  logits: Bars | null;
}

export function readFeature({ result, buffers }: Answer<FeatureResult>): Feature {
  const logits = { counts: int32(buffers[2]), edges: float32(buffers[3]) };
  return {
    ...result,
    histogram: { counts: int32(buffers[0]), edges: float32(buffers[1]) },
    logits: logits.counts.length > 0 ? logits : null,
  };
}

export interface ExamplesResult {
  /** The distinct tokens of all windows; the buffer refers to them by place. */
  texts: string[];
  special: number[];
  hex: number[];
  lengths: number[];
  peaks: number[];
  /** Place of each peak in its context, BOS being 0. */
  positions: number[];
  contexts: number[];
}

export interface Example {
  key: string;
  /** The activation on the peak token. */
  value: number;
  position: number;
  context: number;
  peak: number;
  tokens: Token[];
  values: Float32Array;
}

export function readExamples({ result, buffers }: Answer<ExamplesResult>): Example[] {
  const places = uint16(buffers[0]);
  const active = int32(buffers[1]);
  const strengths = float32(buffers[2]);
  const special = new Set(result.special);
  const hex = new Set(result.hex);
  const tokens = result.texts.map((text, i): Token => ({ text, special: special.has(i), hex: hex.has(i) }));
  const values = new Float32Array(places.length);
  active.forEach((at, i) => (values[at] = strengths[i]!));
  let from = 0;
  return result.lengths.map((length, i) => {
    const start = from;
    from += length;
    const peak = result.peaks[i]!;
    const context = result.contexts[i]!;
    const position = result.positions[i]!;
    return {
      key: `${context}:${position}`,
      value: values[start + peak] ?? 0,
      position,
      context,
      peak,
      tokens: Array.from(places.subarray(start, from), (place) => tokens[place]!),
      values: values.subarray(start, from),
    };
  });
}

/** Examples of several answers whose peak lies in a range, strongest first, each once. */
export function within(examples: readonly Example[], [low, high]: Range): Example[] {
  const found = new Map<string, Example>();
  for (const example of examples) {
    if (example.value >= low && example.value <= high) found.set(example.key, example);
  }
  return [...found.values()].sort((a, b) => b.value - a.value);
}

const SNIPPET = 24;
const ENDS_A_SENTENCE = /[.!?\u2026]["\u201d'\u2019)]*\s*$|\n/u;

/** The part of a context that is shown, from and to (exclusive). */
export function part(example: Example, width: Width): [number, number] {
  const { tokens, peak } = example;
  if (width === "full") return [0, tokens.length];
  if (width === "snippet") return [Math.max(0, peak - SNIPPET), Math.min(tokens.length, peak + SNIPPET + 1)];
  const ends = (i: number) => ENDS_A_SENTENCE.test(tokens[i]!.text) || tokens[i]!.special === true;
  const closes = (i: number) => /^["\u201d'\u2019)]+$/u.test(tokens[i]!.text.trimEnd());
  let from = peak;
  while (from > 0 && !ends(from - 1) && !(closes(from - 1) && from > 1 && ends(from - 2))) from--;
  let to = peak;
  while (to < tokens.length - 1 && !ends(to)) to++;
  if (to < tokens.length - 1 && ends(to) && closes(to + 1)) to++;
  return [from, to + 1];
}
