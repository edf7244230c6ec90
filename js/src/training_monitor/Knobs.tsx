// What can be changed while the run goes, folded: a field for each setting that the architecture has. What is typed stays
// in its field until the kernel has taken it; what the run is set to now, from here or from Python, shows in all others.

import { useState } from "preact/hooks";
import { useDomId, useLive, usePlace } from "../shared/host";
import { TermOf, type TermName } from "../shared/terms";
import { isOver, type Knobs as Settings, type Progress } from "./said";

type Numbered = Exclude<keyof Settings, "revive">;

const FIELDS: readonly { name: Numbered; term: TermName }[] = [
  { name: "lr", term: "learning rate" },
  { name: "sparsity", term: "sparsity" },
  { name: "k", term: "k" },
];

const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

/** The number that a text is, or the text itself: the kernel then says what was expected. */
export function typed(text: string): number | string {
  const trimmed = text.trim();
  const value = NUMBER.test(trimmed) ? Number(trimmed) : Number.NaN;
  return Number.isFinite(value) ? value : trimmed;
}

/** A setting as it stands in its field: 0.000123457, 32. */
function written(value: number | null): string {
  return value === null ? "" : String(Number(value.toPrecision(6)));
}

export function Knobs({ progress }: { progress: Progress }) {
  const live = useLive();
  const { knobs } = progress;
  const reason = !live ? "off: this page has no kernel" : isOver(progress) ? "off: the run is over" : null;
  const there = FIELDS.filter(({ name }) => name === "lr" || knobs[name] !== null);
  return (
    <details class="sw-knobs">
      <summary>change while it runs</summary>
      <div class="sw-row">
        {there.map(({ name, term }) => (
          <NumberField key={name} name={name} term={term} now={knobs[name]} off={reason} />
        ))}
        {knobs.revive !== null && <Revive now={knobs.revive} off={reason} />}
        <span class="sw-muted sw-label">{reason ?? "Enter applies, from the next step on"}</span>
      </div>
    </details>
  );
}

function NumberField({ name, term, now, off }: { name: Numbered; term: TermName; now: number | null; off: string | null }) {
  const [draft, setDraft] = useState<string | null>(null);
  const { error, waiting, change, forget } = useChange(name);
  const errorId = useDomId();
  const leave = () => {
    setDraft(null);
    forget();
  };
  return (
    <span class="sw-knob">
      <TermOf name={term}>
        {(describedBy) => (
          <label class="sw-label sw-muted">
            {term}{" "}
            <input
              class={`sw-input sw-mono ${draft === null ? "" : "sw-draft"}`}
              type="text"
              inputMode="decimal"
              size={9}
              value={draft ?? written(now)}
              placeholder={now === null ? "not chosen yet" : undefined}
              disabled={off !== null}
              title={off ?? undefined}
              readOnly={waiting}
              aria-describedby={error ? `${errorId} ${describedBy}` : describedBy}
              aria-invalid={error !== null}
              onInput={(event) => setDraft(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === "Escape") leave();
                else if (event.key === "Enter" && draft !== null && !waiting) change(typed(draft), leave);
                else return;
                event.preventDefault();
                event.stopPropagation();
              }}
            />
          </label>
        )}
      </TermOf>
      {draft !== null && !error && off === null && (
        <span class="sw-muted sw-label">{waiting ? "setting\u2026" : now === null ? "not set yet" : `still ${written(now)}`}</span>
      )}
      {error && <span class="sw-status-error sw-label" role="alert" id={errorId}>{error}</span>}
    </span>
  );
}

function Revive({ now, off }: { now: boolean; off: string | null }) {
  const { error, waiting, change, forget } = useChange("revive");
  return (
    <span class="sw-knob">
      <TermOf name="revive">
        {(describedBy) => (
          <label class="sw-label sw-muted sw-check">
            <input
              type="checkbox"
              checked={now}
              disabled={off !== null || waiting}
              title={off ?? undefined}
              aria-describedby={describedBy}
              onClick={(event) => {
                event.preventDefault(); // it is what the run is set to: checked once the kernel says so
                change(!now, forget);
              }}
            />{" "}
            revive dead features
          </label>
        )}
      </TermOf>
      {error && <span class="sw-status-error sw-label" role="alert">{error}</span>}
    </span>
  );
}

/** Asks the kernel to change one setting, and keeps its sentence where it refuses. */
function useChange(name: keyof Settings) {
  const { transport } = usePlace();
  const [error, setError] = useState<string | null>(null);
  const [waiting, setWaiting] = useState(false);
  const change = (value: number | string | boolean, done: () => void) => {
    setWaiting(true);
    setError(null);
    transport
      .request("change", { name, value })
      .then(done)
      .catch((reason: Error) => setError(reason.message))
      .finally(() => setWaiting(false));
  };
  return { error, waiting, change, forget: () => setError(null) };
}
