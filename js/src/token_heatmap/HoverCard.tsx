// What is known of the token under the pointer.

import { Card } from "../shared/card";
import { percent, three } from "../shared/format";
import { inQuotes } from "../shared/tokens";
import type { Reading } from "./reading";

export function HoverCard({ reading, index, at, feature }: { reading: Reading; index: number; at: DOMRect; feature: number | null }) {
  const top = reading.active(index).slice(0, 3);
  const p = reading.probability[index];
  return (
    <Card at={at}>
      <div>
        <b class="sw-mono">{inQuotes(reading.tokens[index]!)}</b> <span class="sw-muted">token {index}</span>
      </div>
      {feature !== null && (
        <div>
          #{feature} {three(reading.value(index, feature))}
        </div>
      )}
      <div>{p !== undefined && p > 0 ? `probability ${percent(p)} given the text before it` : "the first token: nothing before it"}</div>
      {top.length > 0 && (
        <div class="sw-muted">{top.map((row) => `#${row.feature} ${three(row.value)}`).join(" \u00b7 ")}</div>
      )}
    </Card>
  );
}
