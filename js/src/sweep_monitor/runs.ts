// The logged rows of every SAE of a sweep, and what they say.

import { measuredAt, nearestRow } from "../shared/curve";
import { percent, short, three } from "../shared/format";
import { type Answer, float32 } from "../shared/transport";
import { append, type Mark, NO_ROWS, type Rows } from "../training_monitor/rows";
import { changesOf, type Moving } from "../training_monitor/said";

export interface Progress extends Moving {
  /** How many rows each SAE has. */
  rows: number[];
  /** The sentences of those that failed, by number. */
  errors: Record<string, string>;
  /** How many changes were made while it ran; what one call did to several SAEs is one. */
  events: number;
}

export interface One {
  label: string;
  options: (string | null)[];
  d_sae: number;
  /** Whether codes have signs: two features are then looked back at for each. */
  two_sided: boolean;
  colour: string;
  dash: keyof typeof DASHES;
}

export interface About {
  options: string[];
  saes: One[];
  d_in: number;
  hook_name: string | null;
  model_name: string | null;
  measures_ce_loss: boolean;
  /** Whether there is a model to read a prompt with. */
  reads: boolean;
  /** Tokens that a feature's strongest examples are looked up in; null where there is no text. */
  n_sampled: number | null;
}

export interface Piece {
  since: number[];
  columns: string[];
  counts: number[];
  dead_window: number | null;
}

export const DASHES = { solid: undefined, dash: "6 3", dot: "2 3", dashdot: "6 3 2 3" };

/** Every SAE's rows with its part of a piece behind them. */
export function appendAll(all: readonly Rows[], { result, buffers }: Answer<Piece>): Rows[] {
  const values = float32(buffers[0]);
  const width = result.columns.length;
  let from = 0;
  return result.counts.map((n, sae) => {
    const own = values.slice(from * width, (from + n) * width);
    from += n;
    const part = { since: result.since[sae]!, columns: result.columns, dead_window: result.dead_window };
    return append(all[sae] ?? NO_ROWS, { result: part, buffers: [new DataView(own.buffer)] });
  });
}

/** The last measure of an SAE up to a step, or up to now. */
export function valueAt(rows: Rows, column: string, step: number | null): number {
  const y = rows.columns[column];
  if (!y || rows.n === 0) return Number.NaN;
  const row = step === null ? rows.n - 1 : nearestRow(rows.columns.step!, step)!;
  const at = measuredAt(y, row);
  return at < 0 ? Number.NaN : y[at]!;
}

/** The SAEs that no other beats in both: fewer active features and more variance explained. By rising L0. */
export function frontier(l0: readonly number[], explained: readonly number[]): number[] {
  const known = l0.map((_, i) => i).filter((i) => Number.isFinite(l0[i]) && Number.isFinite(explained[i]));
  known.sort((a, b) => l0[a]! - l0[b]! || explained[b]! - explained[a]!);
  const best: number[] = [];
  for (const i of known) if (best.length === 0 || explained[i]! > explained[best.at(-1)!]!) best.push(i);
  return best;
}

/** Heights for labels that must not run into each other: each at least `gap` below the one above, all within `room`. */
export function spread(wanted: readonly number[], gap: number, room: number): number[] {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a]! - wanted[b]!);
  const placed = [...wanted];
  const step = Math.min(gap, room / Math.max(1, wanted.length - 1));
  order.forEach((i, place) => {
    placed[i] = Math.max(wanted[i]!, place ? placed[order[place - 1]!]! + step : 0);
  });
  for (let place = order.length - 1; place >= 0; place--) {
    const most = place === order.length - 1 ? room : placed[order[place + 1]!]! - step;
    placed[order[place]!] = Math.min(placed[order[place]!]!, most);
  }
  return placed;
}

/** What the pictures say, for those who do not see them. */
export function pictureOf(saes: readonly One[], rows: readonly Rows[], step: number | null, marks: readonly Mark[]): string {
  const changed = marks.length ? ` Changed while they ran: ${changesOf(marks)}.` : "";
  const at = (column: string) => rows.map((own) => valueAt(own, column, step));
  const [l0, explained, dead] = [at("l0"), at("explained_variance"), at("dead_fraction")];
  if (!explained.some(Number.isFinite)) return `No step has been logged yet.${changed}`;
  const best = frontier(l0, explained);
  const each = best.map((i) => `${saes[i]!.label}: L0 ${three(l0[i])}, explained variance ${three(explained[i])}, ${percent(dead[i])} dead`);
  const window = rows.find(({ deadWindow }) => deadWindow)?.deadWindow;
  return `On the frontier, by rising L0: ${each.join("; ")}.${window ? ` Dead: silent for ${short(window)} tokens.` : ""}${changed}`;
}

/** What was changed between a logged step and the one before it, to be read beside its numbers. */
export function changedBefore(rows: Rows, step: number, marks: readonly Mark[]): string {
  const row = rows.n ? nearestRow(rows.columns.step!, step)! : 0;
  const before = row > 0 ? rows.columns.step![row - 1]! : -1;
  const changed = marks.filter((mark) => mark.step >= before && mark.step < step);
  return changed.length ? ` Changed before it: ${changesOf(changed)}.` : "";
}
