// The run's numbers at the snapshot looked at, each with its definition: one row of its metrics.

import { measuredAt } from "../shared/curve";
import { count, short } from "../shared/format";
import { Term } from "../shared/terms";
import type { Measure } from "./measures";
import type { Rows } from "./rows";

const SHOWN = ["loss", "explained_variance", "l0", "dead_fraction", "ce_loss_recovered"];

export function Health({ rows, row, measures }: { rows: Rows; row: number; measures: readonly Measure[] }) {
  const steps = rows.columns.step!;
  return (
    <p class="sw-row sw-health" aria-label={`The run at step ${count(steps[row]!)}`}>
      {measures.filter(({ column }) => SHOWN.includes(column)).map(({ column, name, format }) => {
        const values = rows.columns[column] ?? new Float32Array();
        const read = measuredAt(values, row);
        return (
          <span key={column}>
            <Term name={name} /> <b class="sw-mono">{read < 0 ? "\u2013" : format(values[read]!)}</b>
            {column === "dead_fraction" && rows.deadWindow && <span class="sw-muted sw-label"> silent for {short(rows.deadWindow)} tokens</span>}
            {read < 0 ? <span class="sw-muted sw-label"> not measured by then</span> : read !== row && <span class="sw-muted sw-label"> of step {count(steps[read]!)}</span>}
          </span>
        );
      })}
    </p>
  );
}
