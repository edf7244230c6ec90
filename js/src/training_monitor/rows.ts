// What a run has written down, its rows and its events, fetched piece by piece: a piece begins where the ones before it end.

import { useEffect, useRef, useState } from "preact/hooks";
import { usePlace } from "../shared/host";
import { type Answer, float32 } from "../shared/transport";

export interface Rows {
  n: number;
  /** Tokens a feature must be silent for to count as dead. */
  deadWindow: number | null;
  columns: Record<string, Float32Array>;
}

export interface Piece {
  since: number;
  columns: string[];
  dead_window: number | null;
}

export const NO_ROWS: Rows = { n: 0, deadWindow: null, columns: {} };

/** A change made while the run went on. */
export interface Mark {
  step: number;
  /** "k 32 → 16" */
  label: string;
}

export interface Marks {
  n: number;
  marks: readonly Mark[];
}

export const NO_MARKS: Marks = { n: 0, marks: [] };

/** `before` with the events of a piece behind it; as `append`. */
export function appendMarks(before: Marks, { result }: Answer<{ since: number; events: Mark[] }>): Marks {
  if (result.since !== before.n || result.events.length === 0) return before;
  return { n: before.n + result.events.length, marks: [...before.marks, ...result.events] };
}

/** `rows` with a piece behind it; a piece that does not begin at their end changes nothing. */
export function append(rows: Rows, { result, buffers }: Answer<Piece>): Rows {
  const values = float32(buffers[0]);
  const width = result.columns.length;
  const more = width ? Math.floor(values.length / width) : 0;
  if (result.since !== rows.n || more === 0) return rows;
  const columns: Record<string, Float32Array> = {};
  result.columns.forEach((name, column) => {
    const line = new Float32Array(rows.n + more);
    line.set(rows.columns[name] ?? new Float32Array(rows.n).fill(Number.NaN));
    for (let i = 0; i < more; i++) line[rows.n + i] = values[i * width + column]!;
    columns[name] = line;
  });
  return { n: rows.n + more, deadWindow: result.dead_window, columns };
}

/** All there is of what `method` gives; asks for what is missing whenever `there` has grown, one question at a time. */
export function useGrowing<Whole extends { n: number }, Result>(
  method: string,
  there: number,
  nothing: Whole,
  grow: (before: Whole, piece: Answer<Result>) => Whole,
): [Whole, string | null] {
  const { transport } = usePlace();
  const [whole, setWhole] = useState(nothing);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const tried = useRef("");
  useEffect(() => {
    const question = `${whole.n} of ${there}`;
    // A question that has failed is not asked again before there is more to ask for.
    if (busy || there <= whole.n || tried.current === question) return;
    tried.current = question;
    setBusy(true);
    transport
      .request<Result>(method, { since: whole.n })
      .then((piece) => {
        setWhole((before) => grow(before, piece));
        setError(null);
      })
      .catch((reason: Error) => setError(reason.message))
      .finally(() => setBusy(false));
  }, [transport, method, there, whole.n, busy]);
  return [whole, error];
}
