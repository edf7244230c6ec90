// A prompt as the SAE reads it: the answer to "tokens", with the questions the view asks of it.

import { type Answer, float32, int32 } from "../shared/transport";
import type { Token } from "../shared/tokens";

export interface Label {
  top_tokens: string;
  density: number;
  max: number;
}

export interface Result {
  tokens: Token[];
  k: number;
  /** Whether the k features of each token are all that are active. */
  whole: boolean;
  /** Positions that the SAE leaves out. */
  excluded: number[];
  /** Which SAE it is, in a line. */
  source: string;
  labels: Record<string, Label>;
}

/** The answer to "values": some features on every token, whether among the strongest or not. */
export interface Exact {
  features: number[];
  labels: Record<string, Label>;
}

export interface Active {
  feature: number;
  value: number;
}

export interface Reading {
  result: Result;
  tokens: Token[];
  n: number;
  /** P(token i | the tokens before it); NaN for the first. */
  probability: Float32Array;
  /** exp of the mean log probability. */
  meanProbability: number;
  /** The features of token i, strongest first. */
  active(index: number): Active[];
  /** The activation of `feature` on token i; for `null` that of the strongest one. */
  value(index: number, feature: number | null): number;
  /** The end of the colour scale, and what it is the maximum of. */
  scale(feature: number | null): number;
  scaleOf(feature: number | null): string;
  label(feature: number): Label | undefined;
  isSilent(feature: number): boolean;
}

export function read({ result, buffers }: Answer<Result>, exact: Answer<Exact> | null = null): Reading {
  const values = float32(buffers[0]);
  const features = int32(buffers[1]);
  const probability = float32(buffers[2]);
  const { tokens, k } = result;
  const labels = { ...exact?.result.labels, ...result.labels };
  const n = tokens.length;
  const byFeature = new Map<number, Float32Array>();
  for (let i = 0; i < n * k; i++) {
    if (values[i]! <= 0) continue;
    const line = byFeature.get(features[i]!) ?? new Float32Array(n);
    line[Math.floor(i / k)] = values[i]!;
    byFeature.set(features[i]!, line);
  }
  const asked = float32(exact?.buffers[0]);
  exact?.result.features.forEach((feature, row) => {
    const line = asked.slice(row * n, (row + 1) * n);
    if (line.length === n && line.some((value) => value > 0)) byFeature.set(feature, line);
  });
  const strongest = Float32Array.from({ length: n }, (_, i) => values[i * k] ?? 0);
  const known = Array.from(probability).filter((p) => p > 0);
  const line = (feature: number | null) => (feature === null ? strongest : byFeature.get(feature));
  return {
    result,
    tokens,
    n,
    probability,
    meanProbability: known.length ? Math.exp(known.reduce((sum, p) => sum + Math.log(p), 0) / known.length) : 0,
    active: (index) =>
      Array.from({ length: k }, (_, j) => ({ feature: features[index * k + j]!, value: values[index * k + j]! })).filter(
        ({ value }) => value > 0,
      ),
    value: (index, feature) => line(feature)?.[index] ?? 0,
    // A feature is measured against its own maximum in the index, so that a weak activation looks weak.
    scale: (feature) => (feature !== null ? labels[feature]?.max : undefined) ?? Math.max(0, ...(line(feature) ?? [])),
    scaleOf: (feature) =>
      feature === null ? "strongest in this prompt" : labels[feature] ? "its max in the index" : "its max in this prompt",
    label: (feature) => labels[feature],
    isSilent: (feature) => !byFeature.has(feature),
  };
}
