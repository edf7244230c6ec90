import { useEffect, useState } from "preact/hooks";
import { Curve, measuredAt, nearestRow } from "../shared/curve";
import { count, duration, percent, short, three } from "../shared/format";
import { useLive, usePlace, useTrait, widget } from "../shared/host";
import { Foot, Status } from "../shared/parts";
import { Term, type TermName } from "../shared/terms";
import { Knobs } from "./Knobs";
import { codeOf, LookBack, Prompt } from "./LookBack";
import css from "./look.css";
import { append, appendMarks, type Mark, NO_MARKS, NO_ROWS, type Rows, useGrowing } from "./rows";
import { type About, epochOf, isOver, pictureOf, type Progress, rowOf, stateOf } from "./said";

const KEYS = "Left and Right read the curves row by row, Page Up and Down by ten, Home and End go to the first and last row, Esc lets go; Enter applies a changed setting, Esc takes it back; ? shows these keys";
const EMPTY = new Float32Array();
const SILENCE = 12_000; // ms without news of a running run until it is said

interface Measure {
  column: string;
  name: TermName;
  format: (value: number) => string;
  log?: boolean;
  include?: readonly number[];
  clip?: readonly [number, number];
}

// A share that moves must not change its width with each row.
const thousandths = (value: number) => value.toFixed(3).replace("-", "\u2212");

const MEASURES: readonly Measure[] = [
  { column: "loss", name: "loss", format: three, log: true },
  { column: "explained_variance", name: "explained variance", format: thousandths, clip: [0, 1] },
  { column: "ce_loss_recovered", name: "CE loss recovered", format: thousandths, clip: [0, 1] },
  { column: "l0", name: "L0", format: three, include: [0] },
  { column: "dead_fraction", name: "dead features", format: percent, include: [0, 0.01] },
  { column: "vectors_per_second", name: "vectors/s", format: short, include: [0] },
];

function TrainingMonitor() {
  const [progress] = useTrait<Progress>("progress");
  const [about] = useTrait<About>("_about");
  const [rows, missing] = useGrowing("rows", progress.rows, NO_ROWS, append);
  const [{ marks }, unmarked] = useGrowing("events", progress.events, NO_MARKS, appendMarks);
  const [at, setAt] = useState<number | null>(null);
  const [steps] = useTrait<number[]>("_snapshots");
  const [snapshot, setSnapshot] = useTrait<number | null>("snapshot_step");
  const [prompt] = useTrait<string>("prompt");
  const [feature] = useTrait<number | null>("feature");
  const back = snapshot === null ? null : nearestRow(rows.columns.step ?? EMPTY, snapshot);
  const reading = at !== null && at < rows.n ? at : back;
  const seconds = rows.n ? rows.columns.seconds![rows.n - 1]! : null;
  const silent = useSilence(progress);
  const failed = progress.state === "failed";
  return (
    <div class="sw-monitor">
      <Head about={about} progress={progress} />
      <div class="sw-row sw-going">
        <Going progress={progress} />
        <Buttons progress={progress} />
      </div>
      <p class={`sw-status ${failed ? "sw-status-error" : ""}`} role={failed ? "alert" : "status"}>
        {stateOf(progress, seconds)}
        {progress.skipped_steps > 0 && (
          <>
            {" "}
            <span class="sw-skipped">
              {count(progress.skipped_steps)} <Term name="skipped steps">{progress.skipped_steps === 1 ? "skipped step" : "skipped steps"}</Term>.
            </span>
          </>
        )}
      </p>
      {silent && (
        <p class="sw-status" role="status">
          No news from the run for {duration(SILENCE / 1000)}: the kernel is busy, or it was restarted and the run is gone.
        </p>
      )}
      {(missing ?? unmarked) && <p class="sw-status sw-status-error" role="alert">{missing ?? unmarked}</p>}
      <Status />
      <Knobs progress={progress} />
      <Curves rows={rows} marks={marks} at={reading} onAt={setAt} />
      {steps.length > 0 && <LookBack steps={steps} step={snapshot} onStep={setSnapshot} />}
      {about.reads && steps.length > 0 && <Prompt steps={steps} step={snapshot} />}
      <Foot code={snapshot === null ? undefined : codeOf(snapshot, prompt, feature)}>
        {reading !== null ? rowOf(rows, reading, marks) : rows.n ? `${count(rows.n)} rows to ${rowOf(rows, rows.n - 1, [])}; point at a curve to read all of them` : "The first row comes soon."}
      </Foot>
    </div>
  );
}

function Head({ about, progress }: { about: About; progress: Progress }) {
  return (
    <div class="sw-row">
      <span class="sw-title">
        {about.architecture}, {count(about.d_sae)} features
      </span>
      <span class="sw-muted">
        {progress.knobs.k !== null && `k ${count(progress.knobs.k)}, `}
        {about.hook_name ? (
          <>
            on <span class="sw-mono">{about.hook_name}</span>
          </>
        ) : (
          `on vectors of size ${count(about.d_in)}`
        )}
        {about.model_name && ` of ${about.model_name}`}
      </span>
      <span class="sw-spacer" />
      <span>
        {short(progress.tokens)} of {short(progress.n_tokens)} tokens
      </span>
    </div>
  );
}

function Going({ progress }: { progress: Progress }) {
  const share = progress.n_tokens > 0 ? Math.min(1, progress.tokens / progress.n_tokens) : 0;
  const { state, vectors_per_second: speed, seconds_left: left } = progress;
  const epoch = epochOf(progress);
  return (
    <>
      <div
        class={`sw-progress sw-progress-${state}`}
        role="progressbar"
        aria-label="share of the tokens trained on"
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(share * 100)}
      >
        <span style={{ width: `${share * 100}%` }} />
      </div>
      <span class="sw-number sw-share">{`${Math.floor(share * 100)} %`}</span>
      <span class="sw-hidden" aria-live="polite">{state === "running" && share >= 0.1 && `${Math.floor(share * 10) * 10} % of the tokens`}</span>
      {epoch && <span class="sw-muted">{epoch}</span>}
      {state === "running" && speed !== null && (
        <span class="sw-muted">
          {short(speed)} <Term name="vectors/s" />
        </span>
      )}
      {state === "running" && left !== null && <span class="sw-muted">{duration(left)} left</span>}
    </>
  );
}

function Buttons({ progress }: { progress: Progress }) {
  const { transport } = usePlace();
  const live = useLive();
  const [error, setError] = useState<string | null>(null);
  const [question, setQuestion] = useState<{ method: string; state: string } | null>(null);
  const { state } = progress;
  const asked = question?.state === state ? question.method : null; // answered once the state is another one
  const ask = (method: string) => {
    setQuestion({ method, state });
    setError(null);
    transport.request(method, {}).catch((reason: Error) => {
      setQuestion(null);
      setError(reason.message);
    });
  };
  if (isOver(progress)) return null;
  const off = !live;
  const reason = live ? undefined : "This page has no kernel.";
  return (
    <span class="sw-row sw-buttons">
      {off && <span class="sw-muted sw-label">off: this page has no kernel</span>}
      {state === "paused" || asked === "pause" ? (
        <button class="sw-button" type="button" disabled={off || asked !== null} title={reason} onClick={() => ask("resume")}>
          {asked === "pause" ? "pausing\u2026" : asked === "resume" ? "going on\u2026" : "\u25b6 go on"}
        </button>
      ) : (
        <button class="sw-button" type="button" disabled={off || asked !== null} title={reason} onClick={() => ask("pause")}>
          {asked === "resume" ? "going on\u2026" : "\u23f8 pause"}
        </button>
      )}
      <button class="sw-button" type="button" disabled={off || asked === "stop"} title={reason} onClick={() => ask("stop")}>
        {asked === "stop" ? "stopping\u2026" : "\u25a0 stop"}
      </button>
      {error && <span class="sw-status-error" role="alert">{error}</span>}
    </span>
  );
}

interface Shown {
  rows: Rows;
  marks: readonly Mark[];
  /** The row being read. */
  at: number | null;
  onAt: (row: number | null) => void;
}

function Curves({ rows, marks, at, onAt }: Shown) {
  const x = rows.columns.step ?? EMPTY;
  const onKeyDown = (event: KeyboardEvent) => {
    const last = rows.n - 1;
    const here = at ?? rows.n;
    const to: Record<string, number> = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last, PageUp: here - 10, PageDown: here + 10 };
    const row = to[event.key];
    if (event.key === "Escape") onAt(null);
    else if (row !== undefined && last >= 0) onAt(Math.max(0, Math.min(last, row)));
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <>
      <div
        class="sw-curves"
        tabIndex={0}
        role="group"
        aria-label={`Curves of the run. ${pictureOf(rows, marks)} Left and right arrow read them row by row.`}
        onKeyDown={onKeyDown}
        onBlur={() => onAt(null)}
      >
        {MEASURES.map(({ column, name, ...drawn }) => (
          <Curve
            key={column}
            name={<Term name={name} />}
            label={name}
            x={x}
            y={rows.columns[column] ?? EMPTY}
            note={noteOf(column, rows)}
            marks={marks}
            at={at}
            onAt={onAt}
            {...drawn}
          />
        ))}
      </div>
      <span class="sw-hidden" aria-live="polite">{at !== null && rowOf(rows, at, marks)}</span>
    </>
  );
}

function noteOf(column: string, rows: Rows): string | undefined {
  if (column === "loss") return "log";
  if (column === "dead_fraction" && rows.deadWindow) return `silent for ${short(rows.deadWindow)} tokens`;
  if (column === "ce_loss_recovered" && measuredAt(rows.columns[column] ?? EMPTY, rows.n) < 0) return "not measured yet";
  return undefined;
}

/** True when a running run has not been heard of for a while. */
function useSilence(progress: Progress): boolean {
  const live = useLive();
  const [silent, setSilent] = useState(false);
  useEffect(() => {
    setSilent(false);
    if (!live || progress.state !== "running") return;
    const timer = setTimeout(() => setSilent(true), SILENCE);
    return () => clearTimeout(timer);
  }, [live, progress]);
  return silent;
}

export default widget(TrainingMonitor, { name: "sw-training-monitor", css, keys: KEYS });
