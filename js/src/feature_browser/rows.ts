// The table of all features as columns of numbers; sorted, filtered and searched here, without asking again.

import type { Token } from "../shared/tokens";
import { type Answer, bytes, float32, int32, uint16 } from "../shared/transport";

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
        return { text: decoder.decode(utf8.subarray(start[token]!, start[token + 1]!)) };
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

/** Without a kernel: features that have the text among their top tokens, whose nearest comes first; or the one "#412". */
export function searchTopTokens(table: Table, query: string): number[] {
  const number = /^\s*#(\d+)\s*$/.exec(query);
  if (number) return Number(number[1]) < table.d_sae ? [Number(number[1])] : [];
  const bare = query.trim().toLowerCase();
  const found: { feature: number; closeness: number }[] = [];
  for (let feature = 0; feature < table.d_sae; feature++) {
    let closeness = 0;
    table.tokens(feature).forEach(({ text }, place) => {
      const said = text.toLowerCase();
      const near = text === query ? 3 : bare !== "" && said.trim() === bare ? 2 : bare !== "" && said.includes(bare) ? 1 : 0;
      if (near > 0) closeness = Math.max(closeness, near + 1 / (place + 2));
    });
    if (closeness > 0) found.push({ feature, closeness });
  }
  return found.sort((a, b) => b.closeness - a.closeness || a.feature - b.feature).map(({ feature }) => feature);
}
