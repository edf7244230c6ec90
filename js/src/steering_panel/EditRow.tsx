// One edited feature: which, how, how strongly.

import { percent, three } from "../shared/format";
import { type Edit, type Facts, inMode, inUnits, inWords, linesOfTicks, MODES, type Mode, nearest, type Place, type Slider, sliderOf } from "./edits";

interface Props {
  edit: Edit;
  facts: Facts | undefined;
  place: Place | undefined;
  live: boolean;
  /** Strengths that a page without a kernel can show; the slider snaps to them. */
  recorded: readonly number[] | null;
  current: boolean;
  onDraft: (edit: Edit) => void;
  onCommit: (edit: Edit) => void;
  onRemove: () => void;
  onCurrent: () => void;
}

const KNOB = 14; // px; a native slider's ends lie half a knob inside
const LINE = 10; // px; of the ticks' names

const STEPS: Record<string, number> = { "]": 1, "[": -1 };
const ARROWS: Record<string, number> = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };

export function EditRow({ edit, facts, place, live, recorded, current, onDraft, onCommit, onRemove, onCurrent }: Props) {
  const slider = sliderOf(edit, facts, place, recorded ?? []);
  const value = edit.value ?? 0;
  const off = live ? undefined : "This page has no kernel.";
  const numberOf = (text: string): Edit | null => {
    const number = Number(text);
    return text.trim() === "" || !Number.isFinite(number) ? null : { ...edit, value: number };
  };
  const read = (input: HTMLInputElement): number => {
    const given = Number(input.value);
    if (!recorded) return given;
    const snapped = nearest(given, recorded);
    input.value = String(snapped); // the knob itself jumps
    return snapped;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // a slider that snaps to what was recorded would snap back from an arrow's own small step
    const arrows = recorded !== null && (event.target as HTMLInputElement).type === "range";
    const step = STEPS[event.key] ?? (arrows ? ARROWS[event.key] : undefined) ?? 0;
    if (step === 0 || event.ctrlKey || event.metaKey || !slider) return;
    event.preventDefault();
    event.stopPropagation();
    if (recorded) {
      const next = step > 0 ? recorded.find((one) => one > value) : recorded.findLast((one) => one < value);
      if (next !== undefined) onCommit({ ...edit, value: next });
    } else onCommit({ ...edit, value: Number((value + step * slider.nudge).toPrecision(6)) });
  };
  return (
    <div class={`sw-edit ${current ? "sw-edit-current" : ""}`} role="group" aria-label={inWords(edit)} onKeyDown={onKeyDown} onFocusCapture={onCurrent}>
      <span class="sw-edit-id sw-mono">#{edit.feature}</span>
      <span class="sw-edit-name sw-mono" title={facts?.top_tokens}>
        {facts?.top_tokens ?? ""}
      </span>
      <select
        class="sw-input"
        aria-label={`Kind of edit of feature ${edit.feature}`}
        value={edit.mode}
        disabled={!live}
        title={off}
        onChange={(event) => onCommit(inMode(edit, event.currentTarget.value as Mode, facts, place))}
      >
        {MODES.map((mode) => (
          <option key={mode} value={mode}>
            {mode}
          </option>
        ))}
      </select>
      {slider ? (
        <span class="sw-slider">
          <input
            type="range"
            title={legendOf(slider, recorded !== null)}
            min={slider.low}
            max={slider.high}
            step={recorded ? "any" : slider.step}
            value={value}
            aria-label={`Strength of feature ${edit.feature}`}
            aria-valuetext={`${three(value)} ${inUnits(edit, facts) ?? ""}`}
            onInput={(event) => onDraft({ ...edit, value: read(event.currentTarget) })}
            onChange={(event) => onCommit({ ...edit, value: read(event.currentTarget) })}
          />
          <Ticks slider={slider} recorded={recorded} />
        </span>
      ) : (
        <span class="sw-slider sw-muted">f(x) becomes 0{facts?.density !== undefined && `, on the ${percent(facts.density)} of tokens where it fires`}</span>
      )}
      {slider ? (
        <input
          class="sw-input sw-edit-number"
          type="number"
          step="any"
          value={Number(value.toPrecision(4))}
          disabled={!live}
          title={off}
          aria-label={`Value of feature ${edit.feature}`}
          onChange={(event) => {
            const next = numberOf(event.currentTarget.value);
            if (next) onCommit(next);
            else event.currentTarget.value = String(value);
          }}
          onKeyDown={(event) => event.key !== "[" && event.key !== "]" && event.stopPropagation()}
        />
      ) : (
        <span />
      )}
      <span class="sw-edit-unit sw-muted sw-label">{inUnits(edit, facts)}</span>
      <button class="sw-button sw-remove" type="button" disabled={!live} title={off ?? `Remove feature ${edit.feature}`} aria-label={`Remove feature ${edit.feature}`} onClick={onRemove}>
        {"\u2715"}
      </button>
    </div>
  );
}

/** What its ticks and dots mean, a line each. */
function legendOf({ ticks }: Slider, recorded: boolean): string {
  const dots = recorded ? ["dots: the strengths recorded with this page"] : [];
  return [...ticks.map(({ name, means }) => `${name}: ${means}`), ...dots].join("\n");
}

function Ticks({ slider, recorded }: { slider: Slider; recorded: readonly number[] | null }) {
  const lines = linesOfTicks(slider, 0.1);
  const below = Math.max(0, ...lines.values());
  const left = (at: number) => {
    const share = (at - slider.low) / (slider.high - slider.low);
    return `calc(${KNOB / 2}px + ${share} * (100% - ${KNOB}px))`;
  };
  return (
    <span class="sw-ticks" style={{ height: `${LINE * below}px` }} aria-hidden="true">
      {slider.ticks.map((tick) => (
        <span key={tick.name} class="sw-tick" style={{ left: left(tick.at) }}>
          <i style={{ marginTop: `${LINE * lines.get(tick)!}px` }}>{tick.name}</i>
        </span>
      ))}
      {recorded?.map((at) => <span key={at} class="sw-tick sw-tick-recorded" style={{ left: left(at) }} />)}
    </span>
  );
}
