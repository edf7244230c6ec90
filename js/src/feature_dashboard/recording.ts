// Answers made by hand, for the tests of the views that show a feature.

import { vi } from "vitest";
import type { Recorded } from "../export_host/recorded";
import type { Params } from "../shared/transport";
import type { ExamplesResult, FeatureResult, Group, RelatedResult } from "./answers";

/** Until it holds: the machine that runs the tests may be busy. */
export const soon = (check: () => void) => vi.waitFor(check, { timeout: 10_000 });

export const WINDOW = 256;

type Numbers = Float32Array | Int32Array | Uint16Array | Uint8Array;

export function base64(numbers: Numbers): string {
  return btoa(String.fromCharCode(...new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength)));
}

export function featureAnswer(feature: number, change: Partial<FeatureResult> = {}, source: Params = {}): Recorded {
  const result: FeatureResult = {
    feature,
    source: "topk \u00b7 blocks.2.hook_resid_post \u00b7 step 5,005",
    n_tokens: 200_000,
    tokens: [{ text: " bridge" }, { text: " river" }],
    shares: [0.6, 0.2],
    density: 0.0021,
    count: 420,
    max: 8,
    mean: 2.4,
    decoder_norm: 1,
    enc_dec_cosine: 0.71,
    flags: [],
    intervals: [4, 3, 2, 1, 0].map((i) => ({ low: i * 1.6, high: (i + 1) * 1.6, share: 0.2 })),
    positive: [{ text: " over", value: 2.1 }],
    negative: [{ text: " sad", value: -0.8 }],
    ...change,
  };
  return {
    method: "feature",
    params: { ...source, feature },
    result,
    buffers: [
      base64(Int32Array.from([100, 200, 50, 70])),
      base64(Float32Array.from([0, 2, 4, 6, 8])),
      base64(Int32Array.from([5, 90, 5])),
      base64(Float32Array.from([-1, 0, 1, 2])),
    ],
  };
}

export interface Written {
  texts: string[];
  values: number[];
  peak: number;
}

export function examplesAnswer(feature: number, group: Group, written: Written[], source: Params = {}): Recorded {
  const texts = [...new Set(written.flatMap((each) => each.texts))];
  const flat = written.flatMap((each) => each.values);
  const active = flat.flatMap((value, at) => (value > 0 ? [at] : []));
  const result: ExamplesResult = {
    texts,
    special: [],
    hex: [],
    lengths: written.map((each) => each.texts.length),
    peaks: written.map(({ peak }) => peak),
    positions: written.map(({ peak }) => peak + 1),
    contexts: written.map((_, i) => i),
  };
  return {
    method: "examples",
    params: { ...source, feature, group, window: WINDOW },
    result,
    buffers: [
      base64(Uint16Array.from(written.flatMap((each) => each.texts.map((text) => texts.indexOf(text))))),
      base64(Int32Array.from(active)),
      base64(Float32Array.from(active, (at) => flat[at]!)),
    ],
  };
}

export function relatedAnswer(feature: number, source: Params = {}): Recorded {
  const result: RelatedResult = { decoder: [{ feature: 87, value: 0.41, tokens: [{ text: " place" }] }], coactive: [] };
  return { method: "related", params: { ...source, feature }, result, buffers: [] };
}
