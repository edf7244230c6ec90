// What is drawn and read of a run, in the order in which it stands.

import { percent, short, three } from "../shared/format";
import type { TermName } from "../shared/terms";

export interface Measure {
  column: string;
  name: TermName;
  format: (value: number) => string;
  log?: boolean;
  include?: readonly number[];
  clip?: readonly [number, number];
}

// A share that moves must not change its width with each row.
const thousandths = (value: number) => value.toFixed(3).replace("-", "\u2212");

const MEASURES: readonly Measure[] = [
  { column: "loss", name: "loss", format: three, log: true },
  { column: "explained_variance", name: "explained variance", format: thousandths, clip: [0, 1] },
  { column: "ce_loss_recovered", name: "CE loss recovered", format: thousandths, clip: [0, 1] },
  { column: "l0", name: "L0", format: three, include: [0] },
  { column: "dead_fraction", name: "dead features", format: percent, include: [0, 0.01] },
  { column: "vectors_per_second", name: "vectors/s", format: short, include: [0] },
];

/** Those that this run takes: one that it never will take is no empty picture. */
export function measuresOf({ measures_ce_loss }: { measures_ce_loss: boolean }): readonly Measure[] {
  return MEASURES.filter(({ column }) => measures_ce_loss || column !== "ce_loss_recovered");
}
