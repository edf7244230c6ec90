// The one histogram: bars over a value axis, heights on a log scale (activations are heavy-tailed), a brush for a range,
// a marker for the value under the pointer elsewhere.

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { count, three } from "./format";

export type Range = readonly [number, number];

interface Props {
  counts: readonly number[] | Float32Array | Int32Array;
  /** One more than `counts`. */
  edges: readonly number[] | Float32Array;
  label: string;
  /** Printed instead of `label`: a term with its definition. */
  caption?: ComponentChildren;
  unit?: string;
  /** Bars left of zero take the negative colour, right of it the positive one. */
  signed?: boolean;
  marker?: number | null;
  brush?: Range | null;
  onBrush?: (range: Range | null) => void;
  height?: number;
}

const WIDTH = 240;

/** Drag across to choose a range; a click or Esc lets go; with the keyboard, arrows move a one-bar range, Shift widens it. */
export function Histogram({ counts, edges, label, caption, unit, signed, marker = null, brush = null, onBrush, height = 56 }: Props) {
  const svg = useRef<SVGSVGElement>(null);
  const from = useRef<number | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const n = counts.length;
  if (n === 0) return <p class="sw-muted">{`${label}: nothing to count`}</p>;
  const low = edges[0]!;
  const high = edges[n]!;
  const x = (value: number) => (high > low ? ((value - low) / (high - low)) * WIDTH : 0);
  const peak = Math.log1p(Math.max(...counts));
  const tall = (value: number) => (peak > 0 && value > 0 ? Math.max(1, (Math.log1p(value) / peak) * (height - 2)) : 0);

  const barAt = (event: PointerEvent): number => {
    const box = svg.current!.getBoundingClientRect();
    const share = box.width > 0 ? (event.clientX - box.left) / box.width : 0;
    return Math.max(0, Math.min(n - 1, Math.floor(share * n)));
  };
  const span = (a: number, b: number): Range => [edges[Math.min(a, b)]!, edges[Math.max(a, b) + 1]!];
  const inside = (i: number) => !brush || (edges[i + 1]! > brush[0] && edges[i]! < brush[1]);

  const onKeyDown = (event: KeyboardEvent) => {
    if (!onBrush) return;
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (event.key === "Escape" && brush) onBrush(null);
    else if (step !== 0) {
      const bar = (value: number) => Math.max(0, Math.min(n - 1, Math.round(((value - low) / (high - low)) * n)));
      const [first, last] = brush ? [bar(brush[0]), bar(brush[1]) - 1] : step > 0 ? [-1, -1] : [n, n];
      const end = Math.max(0, Math.min(n - 1, (step > 0 ? last : first) + step));
      onBrush(event.shiftKey && brush ? (step > 0 ? span(first, end) : span(end, last)) : span(end, end));
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const told = hover === null ? null : `${three(edges[hover])} to ${three(edges[hover + 1])}: ${count(counts[hover]!)}`;
  return (
    <figure class="sw-histogram">
      <figcaption class="sw-caption">
        <span>{caption ?? label}</span>
        <span class="sw-muted">{told ?? (brush ? `${three(brush[0])} to ${three(brush[1])}` : "count, log scale")}</span>
      </figcaption>
      <svg
        ref={svg}
        viewBox={`0 0 ${WIDTH} ${height}`}
        preserveAspectRatio="none"
        height={height}
        role={onBrush ? "slider" : "img"}
        tabindex={onBrush ? 0 : undefined} // an SVG element knows no tabIndex
        aria-label={`${label}, ${three(low)} to ${three(high)}, tallest bar ${count(Math.max(...counts))}`}
        aria-valuetext={onBrush ? (brush ? `${three(brush[0])} to ${three(brush[1])}` : "no range chosen") : undefined}
        aria-valuenow={onBrush ? (brush?.[0] ?? low) : undefined}
        onKeyDown={onKeyDown}
        onPointerDown={(event) => {
          if (!onBrush) return;
          from.current = barAt(event);
          (event.currentTarget as Element).setPointerCapture?.(event.pointerId);
        }}
        onPointerMove={(event) => {
          const bar = barAt(event);
          setHover(bar);
          if (onBrush && from.current !== null && bar !== from.current) onBrush(span(from.current, bar));
        }}
        onPointerUp={(event) => {
          if (onBrush && from.current !== null && barAt(event) === from.current) {
            const bar = from.current;
            onBrush(brush && inside(bar) ? null : span(bar, bar));
          }
          from.current = null;
        }}
        onPointerLeave={() => setHover(null)}
      >
        {Array.from(counts, (value, i) => (
          <rect
            key={i}
            x={(i * WIDTH) / n}
            width={Math.max(0.5, WIDTH / n - 0.6)}
            y={height - tall(value)}
            height={tall(value)}
            class={`sw-bar ${signed ? (edges[i]! + edges[i + 1]! < 0 ? "sw-bar-neg" : "sw-bar-pos") : ""} ${inside(i) ? "" : "sw-bar-out"}`}
          />
        ))}
        <line class="sw-axis" x1={0} x2={WIDTH} y1={height - 0.5} y2={height - 0.5} />
        {marker !== null && <line class="sw-marker" x1={x(marker)} x2={x(marker)} y1={0} y2={height} />}
      </svg>
      <div class="sw-ends">
        <span>{three(low)}</span>
        {signed && low < 0 && high > 0 && <span style={{ position: "absolute", left: `${(x(0) / WIDTH) * 100}%` }}>0</span>}
        <span>{three(high)}{unit ? ` ${unit}` : ""}</span>
      </div>
    </figure>
  );
}

/** The histogram in a row of a table: `heights` 0 to 255, no axis, no words; the row says the numbers. */
export function Spark({ heights, width = 60, height = 18 }: { heights: Uint8Array; width?: number; height?: number }) {
  const step = width / heights.length;
  let path = "";
  heights.forEach((tall, i) => {
    if (tall > 0) path += `M${i * step} ${height}v${-Math.max(1, (tall / 255) * height)}h${step - 0.6}V${height}z`;
  });
  return (
    <svg class="sw-spark" viewBox={`0 0 ${width} ${height}`} width={width} height={height} aria-hidden="true">
      <path class="sw-bar" d={path} />
    </svg>
  );
}
