// What an edit is on the screen: its slider, its formula, its code. No model knowledge: numbers come from "features".

import { signed, three } from "../shared/format";

export type Mode = "clamp" | "add" | "scale" | "ablate";
export const MODES: readonly Mode[] = ["clamp", "add", "scale", "ablate"];

/** The keys in this order: recorded answers are found by the text of their parameters. */
export interface Edit {
  feature: number;
  mode: Mode;
  value: number | null;
}

export interface Facts {
  top_tokens?: string;
  density?: number;
  max?: number;
  /** Pairs of share and value. */
  quantiles?: [number, number][];
}

export interface Place {
  d_sae: number;
  hook_name: string;
  /** Which SAE it is, in a line. */
  source: string;
  indexed: boolean;
  /** The activation that moves x by its own length. */
  reach: number;
  features: Record<string, Facts>;
}

export interface Tick {
  at: number;
  name: string;
  /** What the tick is, in a sentence. */
  means: string;
}

export interface Slider {
  low: number;
  high: number;
  step: number;
  ticks: Tick[];
  /** What [ and ] move by. */
  nudge: number;
}

/** The unit of a feature's strength: its maximum; where that is not known, what moves x by its own length. */
export function unitOf(facts: Facts | undefined, place: Place | undefined): number {
  return (facts?.max || place?.reach) ?? 10;
}

/** The slider of an edit: room for 1.5 times the unit, more where its value or a recorded one asks for it; `null` where
 * there is none. */
export function sliderOf(edit: Edit, facts: Facts | undefined, place: Place | undefined, recorded: readonly number[] = []): Slider | null {
  if (edit.mode === "ablate") return null;
  const asked = [edit.value ?? 0, ...recorded];
  const farthest = Math.max(...asked.map(Math.abs));
  const negative = asked.some((value) => value < 0);
  if (edit.mode === "scale") {
    const high = farthest > 4 ? Math.ceil(farthest * 1.25) : 4;
    const ticks = [0, 1, 2].map((at) => ({ at, name: `${at}\u00d7`, means: ["the feature is taken out", "nothing changes", "twice as strong"][at]! }));
    return { low: negative ? -high : 0, high, step: 0.05, ticks, nudge: 0.1 };
  }
  const unit = unitOf(facts, place);
  const step = 10 ** Math.floor(Math.log10(unit / 50));
  const up = (x: number) => Number((Math.ceil(x / step - 1e-9) * step).toPrecision(6));
  const high = up(Math.max(unit * (facts?.max ? 1.5 : 1), farthest));
  const low = edit.mode === "add" || negative ? -high : 0;
  const ticks: Tick[] = [];
  if (low < 0) ticks.push({ at: 0, name: "0", means: edit.mode === "add" ? "nothing changes" : "as if ablated" });
  if (facts?.max) {
    if (edit.mode === "clamp") {
      for (const [share, at] of facts.quantiles ?? []) {
        const name = `p${Math.round(share * 100)}`;
        ticks.push({ at, name, means: `${Math.round(share * 100)} % of its activations lie below ${three(at)}` });
      }
    }
    ticks.push({ at: facts.max, name: "max", means: `its largest activation in the index, ${three(facts.max)}` });
    if (low < 0) ticks.push({ at: -facts.max, name: "\u2212max", means: "the same, the other way" });
  } else if (place) {
    ticks.push({ at: place.reach, name: "\u2016x\u2016", means: `moves x by its own length, ${three(place.reach)}` });
  }
  return { low, high, step, ticks, nudge: Number((step * Math.max(1, Math.round(unit / 20 / step))).toPrecision(6)) };
}

/** The line under the slider on which each tick's name has room, 0 the nearest: the maximum first, then from below.
 * `room` is a share of the slider's length. */
export function linesOfTicks({ low, high, ticks }: Slider, room: number): Map<Tick, number> {
  const share = (tick: Tick) => (tick.at - low) / (high - low);
  const lines: Tick[][] = [];
  const order = ticks.toSorted((a, b) => Number(b.name.endsWith("max")) - Number(a.name.endsWith("max")) || a.at - b.at);
  for (const tick of order) {
    const free = lines.find((line) => line.every((other) => Math.abs(share(other) - share(tick)) >= room));
    if (free) free.push(tick);
    else lines.push([tick]);
  }
  return new Map(lines.flatMap((line, i) => line.map((tick): [Tick, number] => [tick, i])));
}

/** The value in the feature's own unit: "= 0.86 × max". */
export function inUnits({ mode, value }: Edit, facts: Facts | undefined): string | null {
  if (mode === "ablate" || mode === "scale" || value === null || !facts?.max) return null;
  return `= ${three(Number((value / facts.max).toPrecision(2)))}\u2009\u00d7\u2009max`;
}

/** What the edit does to x, as it is computed. `f` is the feature's activation on the prompt's last token. */
export function formulaOf({ feature, mode, value }: Edit): string {
  const row = `W_dec[${feature}]`;
  const v = value ?? 0;
  switch (mode) {
    case "clamp":
      return `x \u2190 x + (${three(v)} \u2212 f(x))\u00b7${row}`;
    case "add":
      return `x \u2190 x ${v < 0 ? "\u2212" : "+"} ${three(Math.abs(v))}\u00b7${row}`;
    case "scale":
      return `x \u2190 x + (${three(v)} \u2212 1)\u00b7f(x)\u00b7${row}`;
    case "ablate":
      return `x \u2190 x \u2212 f(x)\u00b7${row}`;
  }
}

/** The same edit in another mode, with a value that means something there. */
export function inMode(edit: Edit, mode: Mode, facts: Facts | undefined, place: Place | undefined): Edit {
  const strength = edit.mode === "clamp" || edit.mode === "add" ? edit.value : null;
  const value = { clamp: strength ?? round(unitOf(facts, place)), add: strength ?? round(unitOf(facts, place)), scale: 2, ablate: null }[mode];
  return { feature: edit.feature, mode, value };
}

/** A new edit: held at the feature's own maximum, where that is known. */
export function freshEdit(feature: number, facts: Facts | undefined, place: Place | undefined): Edit {
  return { feature, mode: "clamp", value: round(unitOf(facts, place)) };
}

function round(value: number): number {
  return Number(value.toPrecision(2));
}

/** The recorded strength that is nearest. */
export function nearest(value: number, recorded: readonly number[]): number {
  return recorded.reduce((best, one) => (Math.abs(one - value) < Math.abs(best - value) ? one : best), recorded[0] ?? value);
}

/** Where two texts part: the first place where they do not hold the same token; `null` while they agree. */
export function divergence(a: readonly number[], b: readonly number[], bothDone: boolean): number | null {
  const common = Math.min(a.length, b.length);
  for (let i = 0; i < common; i++) if (a[i] !== b[i]) return i;
  return bothDone && a.length !== b.length ? common : null;
}

export function inWords({ feature, mode, value }: Edit): string {
  const v = three(value);
  return { clamp: `#${feature} held at ${v}`, add: `#${feature} ${signed(value ?? 0)}`, scale: `#${feature} \u00d7 ${v}`, ablate: `#${feature} taken out` }[mode];
}

export function codeOf(prompt: string, edits: readonly Edit[], n_tokens: number, temperature: number, seed: number): string {
  const made = edits.map(({ feature, mode, value }) => `${feature}: sw.${{ clamp: "Clamp", add: "Add", scale: "Scale", ablate: "Ablate" }[mode]}(${value === null ? "" : python(value)})`);
  return `sw.SteeringPanel(sae, model, prompt=${JSON.stringify(prompt)}, edits={${made.join(", ")}}, n_tokens=${n_tokens}, temperature=${python(temperature)}, seed=${seed})`;
}

function python(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}
