// What is known of the token under the pointer, placed below the line being read, never over it.

import { useLayoutEffect, useRef } from "preact/hooks";
import { percent, three } from "../shared/format";
import { inQuotes } from "../shared/tokens";
import type { Reading } from "./reading";

export function HoverCard({ reading, index, at, feature }: { reading: Reading; index: number; at: DOMRect; feature: number | null }) {
  const card = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = card.current;
    const frame = element?.offsetParent?.getBoundingClientRect();
    if (!element || !frame) return;
    const left = Math.min(at.left - frame.left, frame.width - element.offsetWidth - 4);
    element.style.left = `${Math.max(0, left)}px`;
    element.style.top = `${at.bottom - frame.top + 6}px`;
  }, [at]);
  const top = reading.active(index).slice(0, 3);
  const p = reading.probability[index];
  return (
    <div class="sw-card" ref={card} role="status">
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
    </div>
  );
}
