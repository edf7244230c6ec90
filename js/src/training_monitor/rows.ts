// The logged rows of a run, fetched piece by piece: a piece begins where the ones before it end.

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

/** All rows there are; asks for what is missing whenever `there` has grown, one question at a time. */
export function useRows(there: number): [Rows, string | null] {
  const { transport } = usePlace();
  const [rows, setRows] = useState(NO_ROWS);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const tried = useRef("");
  useEffect(() => {
    const question = `${rows.n} of ${there}`;
    // A question that has failed is not asked again before there is more to ask for.
    if (busy || there <= rows.n || tried.current === question) return;
    tried.current = question;
    setBusy(true);
    transport
      .request<Piece>("rows", { since: rows.n })
      .then((piece) => {
        setRows((before) => append(before, piece));
        setError(null);
      })
      .catch((reason: Error) => setError(reason.message))
      .finally(() => setBusy(false));
  }, [transport, there, rows.n, busy]);
  return [rows, error];
}
