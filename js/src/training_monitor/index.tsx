import { useEffect, useState } from "preact/hooks";
import { featureKeys } from "../feature_dashboard/keys";
import dashboardCss from "../feature_dashboard/look.css";
import { Curve, measuredAt, nearestRow } from "../shared/curve";
import { count, duration, short } from "../shared/format";
import { useLive, useTrait, widget } from "../shared/host";
import { Foot, Status } from "../shared/parts";
import { Term } from "../shared/terms";
import { Buttons, Going } from "./Going";
import { Knobs } from "./Knobs";
import css from "./look.css";
import { measuresOf } from "./measures";
import { PastView, usePast } from "./Past";
import { append, appendMarks, type Mark, NO_MARKS, NO_ROWS, type Rows, useGrowing } from "./rows";
import { type About, pictureOf, type Progress, rowOf, stateOf } from "./said";

const KEYS = "Left and Right read the curves row by row, Page Up and Down by ten, Home and End go to the first and last row, Esc lets go; on the slider Left and Right look back and forth; j next feature, k previous; Enter applies a changed setting, Esc takes it back; ? shows these keys";
const EMPTY = new Float32Array();
const SILENCE = 12_000; // ms without news of a running run until it is said

function TrainingMonitor() {
  const [progress] = useTrait<Progress>("progress");
  const [about] = useTrait<About>("_about");
  const [rows, missing] = useGrowing("rows", progress.rows, NO_ROWS, append);
  const [{ marks }, unmarked] = useGrowing("events", progress.events, NO_MARKS, appendMarks);
  const [at, setAt] = useState<number | null>(null);
  const past = usePast({ ...about, sae: null });
  const live = useLive();
  const onKeyDown = past.walk && live ? featureKeys({ step: past.walk }) : undefined;
  const back = past.step === null ? null : nearestRow(rows.columns.step ?? EMPTY, past.step);
  const reading = at !== null && at < rows.n ? at : back;
  const seconds = rows.n ? rows.columns.seconds![rows.n - 1]! : null;
  const silent = useSilence(progress);
  const failed = progress.state === "failed";
  return (
    <div class="sw-monitor" onKeyDown={onKeyDown}>
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
      <Curves about={about} rows={rows} marks={marks} at={reading} onAt={setAt} />
      <PastView past={past} rows={rows} measures={measuresOf(about)} />
      <Foot code={past.code}>
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

interface Shown {
  about: About;
  rows: Rows;
  marks: readonly Mark[];
  /** The row being read. */
  at: number | null;
  onAt: (row: number | null) => void;
}

function Curves({ about, rows, marks, at, onAt }: Shown) {
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
        aria-label={`Curves of the run. ${pictureOf(rows, marks, about.measures_ce_loss)} Left and right arrow read them row by row.`}
        onKeyDown={onKeyDown}
        onBlur={() => onAt(null)}
      >
        {measuresOf(about).map(({ column, name, ...drawn }) => (
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

export default widget(TrainingMonitor, {
  name: "sw-training-monitor sw-feature-dashboard", // its examples wear the dashboard's sheet
  css: dashboardCss + css,
  keys: KEYS,
});
