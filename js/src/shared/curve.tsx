// The one curve: a measure over the steps of a run, its last value beside its name. Curves that are given the same `at`
// are read together: one row of all of them.

import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { three } from "./format";

interface Props {
  name: ComponentChildren;
  /** For those who do not see it. */
  label: string;
  x: Float32Array;
  /** NaN where the measure was not taken; the line goes on to the next point. */
  y: Float32Array;
  format: (value: number) => string;
  log?: boolean | undefined;
  /** What the axis must hold, and where it is cut: values beyond `clip` leave the picture, never the reading. */
  include?: readonly number[] | undefined;
  clip?: readonly [number, number] | undefined;
  note?: ComponentChildren;
  /** Moments on the axis: a thin line each, with its label where there is room for it. */
  marks?: readonly { step: number; label: string }[] | undefined;
  /** The row being read, and who is told about it. */
  at: number | null;
  onAt: (row: number | null) => void;
  height?: number;
}

const WIDTH = 240;
const LINE = 12; // px from a mark's label to the one below it
const LINES = 5;
const LETTER = 5 / 200; // of the axis, for one letter of a label: what a narrow curve needs
const DOTS = 24; // up to so many points each is marked: what was measured, what is only the line between

/** The last row up to `row` on which `y` was measured; -1 if there is none. */
export function measuredAt(y: Float32Array, row: number): number {
  let i = Math.min(row, y.length - 1);
  while (i >= 0 && Number.isNaN(y[i]!)) i--;
  return i;
}

/** The row whose x is nearest; x must not fall. */
export function nearestRow(x: Float32Array, value: number): number | null {
  if (x.length === 0) return null;
  let low = 0;
  let high = x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle]! <= value) low = middle;
    else high = middle;
  }
  return value - x[low]! <= x[high]! - value ? low : high;
}

export function Curve({ name, label, x, y, format, log = false, include = [], clip, note, marks = [], at, onAt, height = 64 }: Props) {
  const svg = useRef<SVGSVGElement>(null);
  const last = measuredAt(y, y.length - 1);
  const read = at === null ? last : measuredAt(y, at);
  const value = read < 0 ? null : y[read]!;
  const [low, high] = extent(y, include, clip, log);
  const along = (v: number) => (v - (x[0] ?? 0)) / ((x[x.length - 1] ?? 1) - (x[0] ?? 0) || 1);
  const up = (v: number) => (log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low));
  const px = (row: number) => (along(x[row]!) * WIDTH).toFixed(2);
  const py = (row: number) => ((1 - up(y[row]!)) * (height - 4) + 2).toFixed(2);
  const rows: number[] = [];
  for (let i = 0; i < y.length; i++) if (Number.isFinite(y[i]!) && (!log || y[i]! > 0)) rows.push(i);
  const line = rows.map((row, i) => `${i ? "L" : "M"}${px(row)} ${py(row)}`).join("");
  // A dot is a line of no length with round ends: it stays round in a picture stretched to its place.
  const dots = rows.length <= DOTS ? rows.map((row) => `M${px(row)} ${py(row)}h0`).join("") : "";
  const told = last < 0 ? "not measured yet" : `${format(y[last]!)} at step ${x[last]}, between ${format(low)} and ${format(high)}`;

  // Before the first row and after the last one there is no axis: those moments stand at its ends.
  const placed = place(marks.map(({ step, label }) => ({ share: x.length ? Math.max(0, Math.min(1, along(step))) : 0, label })));

  const onPointerMove = (event: PointerEvent) => {
    const box = svg.current!.getBoundingClientRect();
    const share = box.width > 0 ? (event.clientX - box.left) / box.width : 0;
    const first = x[0] ?? 0;
    onAt(nearestRow(x, first + share * ((x[x.length - 1] ?? first) - first)));
  };
  return (
    <figure class="sw-curve" aria-label={`${label}: ${told}`}>
      <figcaption class="sw-caption">
        <span>
          {name}
          {note && <span class="sw-muted"> {note}</span>}
        </span>
        <b class={at === null ? "sw-mono" : "sw-mono sw-reading"}>{value === null ? three(null) : format(value)}</b>
      </figcaption>
      <div class="sw-plot">
        <div class="sw-ends" style={{ height: `${height}px` }} aria-hidden="true">
          <span>{rows.length ? format(high) : ""}</span>
          <span>{rows.length ? format(low) : ""}</span>
        </div>
        <div class="sw-drawn">
          <svg
            ref={svg}
            viewBox={`0 0 ${WIDTH} ${height}`}
            preserveAspectRatio="none"
            height={height}
            role="img"
            aria-label={`${label}: ${told}`}
            onPointerMove={onPointerMove}
            onPointerLeave={() => onAt(null)}
          >
            <line class="sw-axis" x1={0} x2={WIDTH} y1={0.5} y2={0.5} />
            <line class="sw-axis" x1={0} x2={WIDTH} y1={height - 0.5} y2={height - 0.5} />
            <path class="sw-line" d={line} />
            {dots && <path class="sw-dots" d={dots} />}
            <MomentLines placed={placed} width={WIDTH} height={height} />
            {at !== null && read >= 0 && (
              <>
                <line class="sw-cross" x1={px(at)} x2={px(at)} y1={0} y2={height} />
                {rows.includes(read) && <path class="sw-dots sw-dots-read" d={`M${px(read)} ${py(read)}h0`} />}
              </>
            )}
          </svg>
          <MomentLabels placed={placed} />
        </div>
      </div>
    </figure>
  );
}

/** The ends of the axis: what was measured and what must be seen, cut to `clip`, never of no height. */
export function extent(y: Float32Array, include: readonly number[], clip: readonly [number, number] | undefined, log: boolean): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const v of [...y, ...include]) {
    if (!Number.isFinite(v) || (log && v <= 0)) continue;
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (clip) [low, high] = [Math.max(low, clip[0]), Math.min(high, clip[1])];
  if (low > high) [low, high] = clip ?? [high, low];
  if (low === high) {
    const room = log ? 1.1 : Math.abs(low) * 0.1 || 1;
    return log ? [low / room, high * room] : [low - room, high + room];
  }
  return [low, high];
}

/** A moment on the axis, by its share of it, and the line of text that its label stands in; null: there is no room for it. */
interface Placed {
  share: number;
  label: string;
  line: number | null;
}

/** A thin line at each moment, inside a picture's svg. */
export function MomentLines({ placed, width, height }: { placed: readonly Placed[]; width: number; height: number }) {
  return (
    <>
      {placed.map(({ share }, i) => (
        <line key={i} class="sw-moment" x1={share * width} x2={share * width} y1={0} y2={height} />
      ))}
    </>
  );
}

/** The labels of the moments, beside the svg. */
export function MomentLabels({ placed }: { placed: readonly Placed[] }) {
  return (
    <>
      {placed.map(({ share, label, line }, i) => line !== null && (
        <span
          key={i}
          class="sw-moment-label"
          aria-hidden="true"
          style={{ top: `${line * LINE}px`, ...(share > 0.5 ? { right: `${(1 - share) * 100}%` } : { left: `${share * 100}%` }) }}
        >
          {label}
        </span>
      ))}
    </>
  );
}

/** Labels beside their lines, right of them in the left half; one that would run into another goes a line down, or is left out. */
export function place(marks: readonly { share: number; label: string }[]): Placed[] {
  const taken: [number, number][][] = Array.from({ length: LINES }, () => []);
  return marks.map(({ share, label }) => {
    const long = label.length * LETTER;
    const [from, to] = share > 0.5 ? [share - long, share] : [share, share + long];
    const line = taken.findIndex((those) => those.every(([a, b]) => to <= a || from >= b));
    taken[line]?.push([from, to]);
    return { share, label, line: line < 0 ? null : line };
  });
}
