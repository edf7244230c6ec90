// The table of all features as columns of numbers; sorted, filtered and searched here, without asking again.

import type { Token } from "../shared/tokens";
import { type Answer, bytes, float32, int32, uint16 } from "../shared/transport";
import { bare, closeness, numberIn } from "./matching";

export type Sort = "match" | "feature" | "density" | "max" | "mean" | "cosine";

export interface TableResult {
  d_sae: number;
  n_tokens: number;
  flags: string[];
  meanings: string[];
  bars: number;
}

export interface Table extends TableResult {
  density: Float32Array;
  count: Int32Array;
  max: Float32Array;
  mean: Float32Array;
  cosine: Float32Array;
  spark(feature: number): Uint8Array;
  tokens(feature: number): Token[];
  flagsOf(feature: number): number[];
  is(feature: number, flag: string): boolean;
}

export function readTable({ result, buffers }: Answer<TableResult>): Table {
  const [density, max, mean, cosine] = [buffers[0], buffers[2], buffers[3], buffers[4]].map(float32) as Float32Array[];
  const flags = bytes(buffers[5]);
  const sparks = bytes(buffers[6]);
  const perFeature = bytes(buffers[7]);
  const lengths = uint16(buffers[8]);
  const utf8 = bytes(buffers[9]);
  const kinds = bytes(buffers[10]);
  const first = new Uint32Array(result.d_sae + 1);
  for (let i = 0; i < result.d_sae; i++) first[i + 1] = first[i]! + (perFeature[i] ?? 0);
  const start = new Uint32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i++) start[i + 1] = start[i]! + lengths[i]!;
  const decoder = new TextDecoder();
  return {
    ...result,
    density: density!,
    count: int32(buffers[1]),
    max: max!,
    mean: mean!,
    cosine: cosine!,
    spark: (feature) => sparks.subarray(feature * result.bars, (feature + 1) * result.bars),
    tokens: (feature) =>
      Array.from({ length: first[feature + 1]! - first[feature]! }, (_, i) => {
        const token = first[feature]! + i;
        return { text: decoder.decode(utf8.subarray(start[token]!, start[token + 1]!)), special: kinds[token] === 1, hex: kinds[token] === 2 };
      }),
    flagsOf: (feature) => result.flags.map((_, bit) => bit).filter((bit) => (flags[feature]! >> bit) & 1),
    is: (feature, flag) => {
      const bit = result.flags.indexOf(flag);
      return bit >= 0 && ((flags[feature]! >> bit) & 1) === 1;
    },
  };
}

export interface Wanted {
  sort: Sort;
  descending: boolean;
  hideDead: boolean;
  hideDense: boolean;
  /** Only these; `null` for all. */
  only: readonly number[] | null;
  /** Features that were found, best first; `null` where nothing is searched. */
  found: ArrayLike<number> | null;
}

/** The features to list, in their order. */
export function listed(table: Table, { sort, descending, hideDead, hideDense, only, found }: Wanted): Uint32Array {
  const kind = only && new Set(only);
  const n = found ? found.length : table.d_sae;
  const kept = new Uint32Array(n);
  let size = 0;
  for (let i = 0; i < n; i++) {
    const feature = found ? found[i]! : i;
    if (feature >= table.d_sae || (kind && !kind.has(feature))) continue;
    if ((hideDead && table.is(feature, "dead")) || (hideDense && table.is(feature, "dense"))) continue;
    kept[size++] = feature;
  }
  const rows = kept.subarray(0, size);
  if (sort === "match") return rows;
  if (sort === "feature") rows.sort();
  else {
    const column = table[sort];
    // What has no number (a dead feature's mean) comes last, whichever way; equal rows by number.
    const way = descending ? -1 : 1;
    const key = (feature: number) => (Number.isNaN(column[feature]!) ? Infinity : way * column[feature]!);
    rows.sort((a, b) => (key(a) === key(b) ? a - b : key(a) - key(b)));
    return rows;
  }
  return descending ? rows.reverse() : rows;
}

/** Without a kernel: features with a matching token among their top tokens, the closest and nearest to the top first;
 * before them the one whose number is asked for. Throws the sentence for "#412" where there is no such feature. */
export function searchTopTokens(table: Table, query: string): number[] {
  const { number, only } = numberIn(query);
  const exists = number !== null && number < table.d_sae;
  if (only && !exists) throw new Error(`feature ${number} is not in this index: it holds 0 to ${table.d_sae - 1}`);
  const named = exists ? [number] : [];
  if (only) return named;
  const wanted = bare(query);
  const found: { feature: number; rank: number }[] = [];
  for (let feature = 0; feature < table.d_sae; feature++) {
    const ranks = table.tokens(feature).map((token, place) => {
      const close = closeness(query, wanted, token);
      return close > 0 ? close + 0.1 / (place + 1) : 0;
    });
    const rank = Math.max(0, ...ranks);
    if (rank > 0 && feature !== named[0]) found.push({ feature, rank });
  }
  return [...named, ...found.sort((a, b) => b.rank - a.rank || a.feature - b.feature).map(({ feature }) => feature)];
}
