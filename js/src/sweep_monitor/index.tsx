import { useEffect, useRef, useState } from "preact/hooks";
import { featureKeys } from "../feature_dashboard/keys";
import dashboardCss from "../feature_dashboard/look.css";
import { alike, count, percent, percentsAlike, short, three } from "../shared/format";
import { useLive, usePlace, useTrait, widget } from "../shared/host";
import { Foot, Status } from "../shared/parts";
import { Term, type TermName } from "../shared/terms";
import { Buttons, Going } from "../training_monitor/Going";
import monitorCss from "../training_monitor/look.css";
import { measuresOf } from "../training_monitor/measures";
import { PastView, usePast } from "../training_monitor/Past";
import { appendMarks, NO_MARKS, NO_ROWS, type Rows, useGrowing } from "../training_monitor/rows";
import { Frontier } from "./Frontier";
import { Lines } from "./Lines";
import css from "./look.css";
import { type About, appendAll, changedBefore, type Piece, pictureOf, type Progress, valueAt } from "./runs";

const KEYS = "Left and Right read the curves row by row, Home and End go to the first and last row, Esc lets go; Enter on a number chooses that SAE, on the slider Left and Right look back and forth at it; j next feature, k previous; ? shows these keys";

const thousandths = (value: number) => (Number.isFinite(value) ? value.toFixed(3).replace("-", "\u2212") : "\u2013");

const COLUMNS: readonly { column: string; name: TermName; formatOf: (values: number[]) => (value: number) => string }[] = [
  { column: "l0", name: "L0", formatOf: alike },
  { column: "explained_variance", name: "explained variance", formatOf: () => thousandths },
  { column: "ce_loss_recovered", name: "CE loss recovered", formatOf: () => thousandths },
  { column: "dead_fraction", name: "dead features", formatOf: percentsAlike },
  { column: "loss", name: "loss", formatOf: alike },
];

function SweepMonitor() {
  const [progress] = useTrait<Progress>("progress");
  const [about] = useTrait<About>("_about");
  const [chosen, setChosen] = useTrait<number | null>("sae");
  const [rows, missing] = useAllRows(progress.rows);
  const [{ marks }, unmarked] = useGrowing("events", progress.events, NO_MARKS, appendMarks);
  const [at, setAt] = useState<number | null>(null);
  const { saes } = about;
  const [, setFeature] = useTrait<number | null>("feature");
  const choose = (sae: number) => {
    setFeature(null); // another SAE has other features
    setChosen(sae === chosen ? null : sae);
  };
  const one = chosen === null ? undefined : saes[chosen];
  const past = usePast({ reads: about.reads, n_sampled: about.n_sampled, d_sae: one?.d_sae ?? 0, two_sided: one?.two_sided ?? false, sae: one ? chosen : undefined });
  const live = useLive();
  const onKeyDown = past.walk && live ? featureKeys({ step: past.walk }) : undefined;
  const reading = at ?? past.step;
  const values = (column: string) => rows.map((own) => valueAt(own, column, reading));
  const longest = rows.reduce((a, b) => (b.n > a.n ? b : a), NO_ROWS);
  const window = rows.find(({ deadWindow }) => deadWindow)?.deadWindow;
  const drawn = { saes, rows, marks, chosen, at: reading, onAt: setAt };
  return (
    <div class="sw-monitor" onKeyDown={onKeyDown}>
      <div class="sw-row">
        <span class="sw-title">{count(saes.length)} SAEs</span>
        <span class="sw-muted">
          {about.hook_name ? <>on <span class="sw-mono">{about.hook_name}</span></> : `on vectors of size ${count(about.d_in)}`}
          {about.model_name && ` of ${about.model_name}`}
        </span>
        <span class="sw-spacer" />
        <span>{short(progress.tokens)} of {short(progress.n_tokens)} tokens</span>
      </div>
      <div class="sw-row sw-going">
        <Going progress={progress} />
        <Buttons progress={progress} />
      </div>
      <p class={`sw-status ${progress.state === "failed" ? "sw-status-error" : ""}`} role={progress.state === "failed" ? "alert" : "status"}>
        {stateOf(progress)}
      </p>
      {(missing ?? unmarked) && <p class="sw-status sw-status-error" role="alert">{missing ?? unmarked}</p>}
      <Status />
      <div
        class="sw-curves sw-sweep"
        tabIndex={0}
        role="group"
        aria-label={`Curves of the sweep. ${pictureOf(saes, rows, reading, marks)} Left and right arrow read them row by row.`}
        onBlur={() => setAt(null)}
        onKeyDown={(event) => {
          if (event.target !== event.currentTarget) return; // a point of the frontier has keys of its own
          const steps = longest.columns.step;
          const here = at === null ? longest.n : (steps?.indexOf(at) ?? 0);
          const to: Record<string, number> = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: longest.n - 1 };
          const row = to[event.key];
          if (event.key === "Escape") setAt(null);
          else if (row !== undefined && steps && longest.n) setAt(steps[Math.max(0, Math.min(longest.n - 1, row))]!);
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}
      >
        <Frontier saes={saes} l0={values("l0")} explained={values("explained_variance")} chosen={chosen} onChoose={choose} />
        <Lines {...drawn} name={<Term name="explained variance" />} label="explained variance" column="explained_variance" format={thousandths} clip={[0, 1]} />
        <Lines {...drawn} name={<Term name="L0" />} label="L0" column="l0" format={three} include={[0]} />
        <Lines
          {...drawn}
          name={<span><Term name="dead features" /> {window && <span class="sw-muted">silent for {short(window)} tokens</span>}</span>}
          label="dead features"
          column="dead_fraction"
          format={percent}
          include={[0, 0.01]}
        />
      </div>
      <Table about={about} rows={rows} at={reading} errors={progress.errors} chosen={chosen} onChoose={choose} />
      {chosen !== null && one && <PastView past={past} rows={rows[chosen] ?? NO_ROWS} measures={measuresOf(about)} />}
      <Foot code={past.code}>
        {reading !== null ? `Everything as it was at step ${count(reading)}.${changedBefore(longest, reading, marks)}` : longest.n ? `To step ${count(longest.columns.step![longest.n - 1]!)}; point at a curve to read all SAEs at a step${chosen === null && about.n_sampled !== null ? ", or choose one to look back at it" : ""}.` : "The first row comes soon."}
      </Foot>
    </div>
  );
}

interface TableProps {
  about: About;
  rows: readonly Rows[];
  at: number | null;
  errors: Record<string, string>;
  chosen: number | null;
  onChoose: (sae: number) => void;
}

/** The legend and the numbers in one: what sets each SAE apart, and how good it is. */
function Table({ about, rows, at, errors, chosen, onChoose }: TableProps) {
  const columns = COLUMNS.filter(({ column }) => about.measures_ce_loss || column !== "ce_loss_recovered").map(({ column, name, formatOf }) => {
    const values = about.saes.map((_, sae) => valueAt(rows[sae] ?? NO_ROWS, column, at));
    return { name, texts: values.map(formatOf(values)) };
  });
  return (
    <div class="sw-scroll">
      <table class="sw-table">
        <thead>
          <tr>
            <th scope="col">SAE</th>
            {about.options.map((name) => <th scope="col" key={name}>{name}</th>)}
            {columns.map(({ name }) => <th scope="col" key={name}><Term name={name} /></th>)}
          </tr>
        </thead>
        <tbody>
          {about.saes.map(({ label, options, colour }, sae) => (
            <tr key={sae} class={sae === chosen ? "sw-chosen" : ""}>
              <th scope="row">
                <button class="sw-button" type="button" aria-pressed={sae === chosen} aria-label={`SAE ${label}`} onClick={() => onChoose(sae)}>
                  <i style={{ background: colour }} /> {sae}
                </button>
              </th>
              {options.map((value, i) => <td key={i}>{value ?? "\u2013"}</td>)}
              {errors[sae] ? (
                <td class="sw-status-error sw-failed" colSpan={columns.length}>{errors[sae]}</td>
              ) : (
                columns.map(({ name, texts }) => <td class="sw-number" key={name}>{texts[sae]}</td>)
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function stateOf({ state, step, n_steps, error }: Progress): string {
  switch (state) {
    case "running":
      return step === 0 ? "Starting: the first activations are being read." : "Training. run.saes are copies of what they have learned so far.";
    case "paused":
      return `Paused at step ${count(step)}. run.saes are copies of what they have learned so far.`;
    case "finished":
      return `Finished: ${count(step)} steps. The trained SAEs are run.saes.`;
    case "stopped":
      return `Stopped at step ${count(step)} of ${count(n_steps)}. run.saes hold what they had learned by then.`;
    case "failed":
      return `Failed: ${error ?? "run.errors says why."}`;
  }
}

/** The rows of every SAE; asks for what is missing whenever one has more, one question at a time. */
function useAllRows(there: readonly number[]): [Rows[], string | null] {
  const { transport } = usePlace();
  const [rows, setRows] = useState<Rows[]>(() => there.map(() => NO_ROWS));
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const tried = useRef("");
  const here = rows.map(({ n }) => n);
  const question = `${here} of ${there}`;
  useEffect(() => {
    // A question that has failed is not asked again before there is more to ask for.
    if (busy || !there.some((n, sae) => n > here[sae]!) || tried.current === question) return;
    tried.current = question;
    setBusy(true);
    transport
      .request<Piece>("rows", { since: here })
      .then((piece) => {
        setRows((before) => appendAll(before, piece));
        setError(null);
      })
      .catch((reason: Error) => setError(reason.message))
      .finally(() => setBusy(false));
  }, [transport, question, busy]);
  return [rows, error];
}

export default widget(SweepMonitor, {
  name: "sw-training-monitor sw-sweep-monitor sw-feature-dashboard", // the curves wear the monitor's sheet, the examples the dashboard's
  css: dashboardCss + monitorCss + css,
  keys: KEYS,
});
