// One measure of all SAEs over the steps: a line each, with its number at the line's end, so that colour is never alone.

import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { extent, MomentLabels, MomentLines, nearestRow, place } from "../shared/curve";
import type { Mark, Rows } from "../training_monitor/rows";
import { DASHES, type One, spread, valueAt } from "./runs";

const WIDTH = 240;
const HEIGHT = 120;
const GAP = 11; // px from one number at a line's end to the next

interface Props {
  name: ComponentChildren;
  label: string;
  column: string;
  saes: readonly One[];
  rows: readonly Rows[];
  marks: readonly Mark[];
  format: (value: number) => string;
  include?: readonly number[];
  clip?: readonly [number, number];
  /** The SAE drawn strong. */
  chosen: number | null;
  /** The step being read, and who is told about it. */
  at: number | null;
  onAt: (step: number | null) => void;
}

export function Lines({ name, label, column, saes, rows, marks, format, include = [], clip, chosen, at, onAt }: Props) {
  const svg = useRef<SVGSVGElement>(null);
  const all = rows.flatMap((own) => Array.from(own.columns[column] ?? []));
  const [low, high] = extent(Float32Array.from(all), include, clip, false);
  const steps = rows.flatMap((own) => (own.n ? [own.columns.step![0]!, own.columns.step![own.n - 1]!] : []));
  const [first, last] = steps.length ? [Math.min(...steps), Math.max(...steps)] : [0, 1];
  const along = (step: number) => (step - first) / (last - first || 1);
  const px = (step: number) => along(step) * WIDTH;
  const placed = place(marks.map(({ step, label: words }) => ({ share: steps.length ? Math.max(0, Math.min(1, along(step))) : 0, label: words })));
  const py = (value: number) => (1 - (Math.max(low, Math.min(high, value)) - low) / (high - low)) * (HEIGHT - 4) + 2;
  const ends = rows.map((own) => valueAt(own, column, null));
  const known = ends.map((_, sae) => sae).filter((sae) => Number.isFinite(ends[sae]));
  const heights = spread(known.map((sae) => py(ends[sae]!)), GAP, HEIGHT);
  const path = (own: Rows) => {
    const y = own.columns[column];
    let line = "";
    for (let i = 0; y && i < own.n; i++) if (Number.isFinite(y[i]!)) line += `${line ? "L" : "M"}${px(own.columns.step![i]!).toFixed(2)} ${py(y[i]!).toFixed(2)}`;
    return line;
  };
  return (
    <figure class="sw-curve" aria-label={`${label}: ${known.map((sae) => `${saes[sae]!.label}, ${format(ends[sae]!)}`).join("; ") || "not measured yet"}`}>
      <figcaption class="sw-caption">{name}</figcaption>
      <div class="sw-plot">
        <div class="sw-ends" style={{ height: `${HEIGHT}px` }} aria-hidden="true">
          <span>{known.length ? format(high) : ""}</span>
          <span>{known.length ? format(low) : ""}</span>
        </div>
        <div class="sw-drawn">
          <svg
            ref={svg}
            viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
            preserveAspectRatio="none"
            height={HEIGHT}
            aria-hidden="true"
            onPointerMove={(event) => {
              const box = svg.current!.getBoundingClientRect();
              const step = first + ((event.clientX - box.left) / (box.width || 1)) * (last - first);
              const longest = rows.reduce((a, b) => (b.n > a.n ? b : a), rows[0]!);
              const row = longest.n ? nearestRow(longest.columns.step!, step) : null;
              onAt(row === null ? null : longest.columns.step![row]!);
            }}
            onPointerLeave={() => onAt(null)}
          >
            <line class="sw-axis" x1={0} x2={WIDTH} y1={0.5} y2={0.5} />
            <line class="sw-axis" x1={0} x2={WIDTH} y1={HEIGHT - 0.5} y2={HEIGHT - 0.5} />
            {rows.map((own, sae) => (
              <path key={sae} class={`sw-line ${strength(sae, chosen)}`} d={path(own)} style={{ stroke: saes[sae]!.colour }} stroke-dasharray={DASHES[saes[sae]!.dash]} />
            ))}
            <MomentLines placed={placed} width={WIDTH} height={HEIGHT} />
            {at !== null && <line class="sw-cross" x1={px(at)} x2={px(at)} y1={0} y2={HEIGHT} />}
          </svg>
          <MomentLabels placed={placed} />
        </div>
        <div class="sw-line-ends" style={{ height: `${HEIGHT}px` }} aria-hidden="true">
          {known.map((sae, i) => (
            <span key={sae} class={strength(sae, chosen)} style={{ top: `${heights[i]! - 6}px`, borderColor: saes[sae]!.colour }}>
              {sae}
            </span>
          ))}
        </div>
      </div>
    </figure>
  );
}

/** The class of what belongs to an SAE: strong, faint, or neither where none is chosen. */
export function strength(sae: number, chosen: number | null): string {
  return chosen === null ? "" : sae === chosen ? "sw-strong" : "sw-faint";
}
