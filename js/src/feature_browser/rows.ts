// The table of all features as columns of numbers; sorted, filtered and searched here, without asking again.

import type { Token } from "../shared/tokens";
import { type Answer, bytes, float32, int32, uint16 } from "../shared/transport";
import { numberIn, ranked, type Scored } from "./matching";

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
  const first = startsOf(bytes(buffers[7]));
  const written = readTokens(buffers.slice(8));
  return {
    ...result,
    density: density!,
    count: int32(buffers[1]),
    max: max!,
    mean: mean!,
    cosine: cosine!,
    spark: (feature) => sparks.subarray(feature * result.bars, (feature + 1) * result.bars),
    tokens: (feature) => Array.from({ length: first[feature + 1]! - first[feature]! }, (_, i) => written(first[feature]! + i)),
    flagsOf: (feature) => result.flags.map((_, bit) => bit).filter((bit) => (flags[feature]! >> bit) & 1),
    is: (feature, flag) => {
      const bit = result.flags.indexOf(flag);
      return bit >= 0 && ((flags[feature]! >> bit) & 1) === 1;
    },
  };
}

/** Where each of a row of parts begins, and the end of the last. */
function startsOf(lengths: ArrayLike<number>): Uint32Array {
  const starts = new Uint32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i++) starts[i + 1] = starts[i]! + lengths[i]!;
  return starts;
}

/** Tokens written one after the other: their lengths, their texts, their kinds. */
function readTokens([lengths, texts, kinds]: DataView[]): (place: number) => Token {
  const start = startsOf(uint16(lengths));
  const utf8 = bytes(texts);
  const kind = bytes(kinds);
  const decoder = new TextDecoder();
  return (place) => ({ text: decoder.decode(utf8.subarray(start[place]!, start[place + 1]!)), special: kind[place] === 1, hex: kind[place] === 2 });
}

export interface MatchesResult {
  /** Features of a token that are carried, at most. */
  n: number;
}

/** The answer to "matches": what a page without a kernel searches in. */
export function readMatches({ buffers }: Answer<MatchesResult>): Scored[] {
  const counts = uint16(buffers[0]);
  const first = startsOf(counts);
  const [features, scores] = [int32(buffers[1]), float32(buffers[2])];
  const written = readTokens(buffers.slice(3));
  return Array.from(counts, (_, place) => {
    const [from, to] = [first[place]!, first[place + 1]!];
    return { token: written(place), features: features.subarray(from, to), scores: scores.subarray(from, to) };
  });
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

/** Without a kernel: the features that a query finds among what the page carries, in the order of the index's search.
 * Throws the sentence for "#412" where there is no such feature. */
export function searchHere(table: Table, matches: readonly Scored[], query: string): number[] {
  const { number, only } = numberIn(query);
  if (only && number! >= table.d_sae) throw new Error(`feature ${number} is not in this index: it holds 0 to ${table.d_sae - 1}`);
  return ranked(query, table.d_sae, matches);
}
