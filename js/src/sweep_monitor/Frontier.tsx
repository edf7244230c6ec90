// Explained variance against L0: a numbered point for each SAE, and the line of those that no other beats in both.

import { inkOn } from "../shared/colour";
import { extent } from "../shared/curve";
import { three } from "../shared/format";
import { Term } from "../shared/terms";
import { strength } from "./Lines";
import { frontier, type One } from "./runs";

const HEIGHT = 120;
const ROOM = 0.12; // of the axis, above the best point and below the worst

interface Props {
  saes: readonly One[];
  l0: readonly number[];
  explained: readonly number[];
  chosen: number | null;
  onChoose: (sae: number) => void;
}

export function Frontier({ saes, l0, explained, chosen, onChoose }: Props) {
  const known = saes.map((_, sae) => sae).filter((sae) => Number.isFinite(l0[sae]) && Number.isFinite(explained[sae]));
  const [left, most] = extent(Float32Array.from(l0), [0], undefined, false);
  const right = most + 0.06 * (most - left);
  const [least, best] = extent(Float32Array.from(explained), [], [0, 1], false);
  const [low, high] = [least - ROOM * (best - least), best + ROOM * (best - least)];
  const x = (sae: number) => ((l0[sae]! - left) / (right - left)) * 100;
  const y = (sae: number) => ((high - Math.max(least, explained[sae]!)) / (high - low)) * 100;
  const line = frontier(l0, explained).map((sae, i) => `${i ? "L" : "M"}${x(sae).toFixed(2)} ${y(sae).toFixed(2)}`).join("");
  return (
    <figure class="sw-curve sw-frontier">
      <figcaption class="sw-caption">
        <span>
          <Term name="explained variance" /> against <Term name="L0" /> <span class="sw-muted">and the frontier</span>
        </span>
      </figcaption>
      <div class="sw-plot">
        <div class="sw-ends" style={{ height: `${HEIGHT}px` }} aria-hidden="true">
          <span>{known.length ? high.toFixed(3) : ""}</span>
          <span>{known.length ? low.toFixed(3) : ""}</span>
        </div>
        <div class="sw-drawn" style={{ height: `${HEIGHT}px` }}>
          <svg viewBox="0 0 100 100" preserveAspectRatio="none" height={HEIGHT} aria-hidden="true">
            <line class="sw-axis" x1={0} x2={100} y1={0.5} y2={0.5} />
            <line class="sw-axis" x1={0} x2={100} y1={99.5} y2={99.5} />
            <path class="sw-frontier-line" d={line} />
          </svg>
          {known.map((sae) => (
            <button
              key={sae}
              type="button"
              class={`sw-point ${strength(sae, chosen)}`}
              style={{ left: `${x(sae)}%`, top: `${y(sae)}%`, background: saes[sae]!.colour, color: inkOn(saes[sae]!.colour) }}
              aria-pressed={sae === chosen}
              aria-label={`${saes[sae]!.label}: L0 ${three(l0[sae])}, explained variance ${three(explained[sae])}`}
              title={`${saes[sae]!.label}: L0 ${three(l0[sae])}, explained variance ${three(explained[sae])}`}
              onClick={() => onChoose(sae)}
            >
              {sae}
            </button>
          ))}
        </div>
      </div>
      <div class="sw-ends sw-below">
        <span>{known.length ? `L0 ${three(left)}` : ""}</span>
        <span>{known.length ? three(right) : ""}</span>
      </div>
    </figure>
  );
}
