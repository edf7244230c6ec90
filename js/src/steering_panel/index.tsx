import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { three } from "../shared/format";
import { type Asked, useLive, usePlace, useRequest, useTrait, widget } from "../shared/host";
import { Foot, Status } from "../shared/parts";
import { PromptForm } from "../shared/prompt";
import { Term } from "../shared/terms";
import type { Params } from "../shared/transport";
import { AddFeature } from "./AddFeature";
import { EditRow } from "./EditRow";
import { codeOf, type Edit, type Facts, formulaOf, freshEdit, inWords, type Place } from "./edits";
import { useUndo } from "./history";
import css from "./look.css";
import { changeOf, isMoved, nextToken, NextTokens, type NextTokenResult } from "./NextTokens";
import { partingOf, Texts, type Written } from "./Texts";

function SteeringPanel() {
  const live = useLive();
  const { model } = usePlace();
  const [prompt, setPrompt] = useTrait<string>("prompt");
  const [edits, setEdits] = useTrait<Edit[]>("edits");
  const [n_tokens, setLength] = useTrait<number>("n_tokens");
  const [temperature, setTemperature] = useTrait<number>("temperature");
  const [seed, setSeed] = useTrait<number>("seed");
  // While a slider moves, only the next token follows; the trait and the texts do when it is let go.
  const [draft, setDraft] = useState<Edit[] | null>(null);
  const [current, setCurrent] = useState<number | null>(null);
  const [withControl, setWithControl] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const undo = useUndo(edits, setEdits);
  useEffect(() => setDraft(null), [edits]);

  const shown = draft ?? edits;
  const recorded = model.get("_recorded") as Record<string, number[]> | undefined;
  const exported = useRef(edits).current;
  const known = useRequest<Place>("features", { features: edits.map(({ feature }) => feature) });
  const place = known.answer?.result;
  const facts = (feature: number): Facts | undefined => place?.features[feature];
  const asked = useNewest<NextTokenResult>("next_token", { prompt, edits: shown, seed });
  const next = useMemo(() => asked.answer && nextToken(asked.answer), [asked.answer]);
  const text = { prompt, n_tokens, temperature, seed };
  const plain = useRequest<Written>("default_text", text);
  const steered = useRequest<Written>("steered_text", { ...text, edits });
  const control = useRequest<Written>("control_text", withControl && edits.length > 0 ? { ...text, edits } : null);

  const change = (feature: number, to: Edit, done: boolean) => {
    // Recorded are the steps of one edit at a time, the others as they were when the page was made.
    const all = (live ? shown : exported).map((edit) => (edit.feature === feature ? to : edit));
    if (live && !done) setDraft(all);
    else {
      setDraft(null);
      setEdits(all);
    }
  };
  const last = shown.find(({ feature }) => feature === current) ?? shown[0];
  // A sentence about a question is gone with the next question.
  const failed = [asked, plain, steered, known].find(({ error, waiting }) => error && !waiting);

  return (
    <div
      ref={root}
      tabIndex={-1}
      class="sw-steering"
      onKeyDown={(event) => {
        const typing = event.target instanceof HTMLTextAreaElement;
        if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey || typing || !live) return;
        event.preventDefault();
        event.stopPropagation();
        undo.back();
      }}
    >
      <Head {...{ prompt, setPrompt, temperature, setTemperature, seed, setSeed, n_tokens, setLength, live }} />
      <Status asked={failed ?? { ...asked, error: null }} off={OFF} />
      <div class="sw-edits">
        {shown.map((edit) => (
          <EditRow
            key={edit.feature}
            edit={edit}
            facts={facts(edit.feature)}
            place={place}
            live={live}
            recorded={live ? null : (recorded?.[edit.feature] ?? [])}
            current={edit === last}
            onDraft={(to) => change(edit.feature, to, false)}
            onCommit={(to) => change(edit.feature, to, true)}
            onRemove={() => {
              setEdits(edits.filter(({ feature }) => feature !== edit.feature));
              root.current?.focus(); // the button goes away, and Ctrl+Z must still be heard
            }}
            onCurrent={() => setCurrent(edit.feature)}
          />
        ))}
      </div>
      {last && (
        <p class="sw-label sw-formula">
          <span class="sw-mono">{formulaOf(last)}</span>
          <span class="sw-muted">
            , SAE error kept
            {next && next.f.length === shown.length && `; f(x) = ${three(next.f[shown.indexOf(last)])} on the last token of the prompt`}
            {place && !place.indexed && `; ${three(place.reach)} would move x by its own length`}
            {last.mode === "clamp" && facts(last.feature)?.quantiles && <>; ticks are <Term name="percentiles" /></>}
          </span>
        </p>
      )}
      <div class="sw-row sw-tools">
        {live && <AddFeature place={place} edits={edits} onAdd={(feature, given) => setEdits([...edits, freshEdit(feature, given, place)])} />}
        {!live && <span class="sw-spacer" />}
        {live && (
          <button class="sw-button" type="button" disabled={undo.steps === 0} title="Ctrl+Z does the same" onClick={undo.back}>
            undo
          </button>
        )}
        <button class="sw-button" type="button" aria-pressed={withControl} disabled={edits.length === 0} onClick={() => setWithControl(!withControl)}>
          random direction&rsquo;s text
        </button>
      </div>
      <Texts plain={plain} steered={steered} control={withControl && edits.length > 0 ? control : null} edited={edits.length > 0} />
      {next && (
        <section class="sw-section" aria-label="Next token">
          <div class="sw-row sw-label sw-muted">{isMoved(next) ? "next token, before \u2192 after; those that change most" : "likeliest next tokens"}</div>
          <NextTokens next={next} edited={shown.length > 0} />
        </section>
      )}
      <p class="sw-label sw-muted sw-told" role="status">
        {shown.length > 0 && next ? `${shown.map(inWords).join(", ")}: ${changeOf(next)} ` : ""}
        {edits.length > 0 && draft === null && partingOf(plain, steered)}
      </p>
      <Foot code={codeOf(prompt, edits, n_tokens, temperature, seed)}>{place?.source}</Foot>
    </div>
  );
}

const KEYS = "[ and ] weaken and strengthen the edit that has the focus, Ctrl+Z takes the last change back, Enter in the prompt writes anew, ? shows these keys";

const OFF = "Recorded: each slider snaps to its dots, the strengths this page was made with; anything else needs Python.";

interface HeadProps {
  prompt: string;
  setPrompt: (prompt: string) => void;
  temperature: number;
  setTemperature: (temperature: number) => void;
  seed: number;
  setSeed: (seed: number) => void;
  n_tokens: number;
  setLength: (n: number) => void;
  live: boolean;
}

function Head({ prompt, setPrompt, temperature, setTemperature, seed, setSeed, n_tokens, setLength, live }: HeadProps) {
  const off = live ? undefined : "This page has no kernel.";
  const field = (name: string, value: number, set: (value: number) => void, step: number, min: number, whole: boolean) => (
    <label class="sw-label sw-muted sw-field">
      <span>{name}</span>
      <input
        class="sw-input"
        type="number"
        step={step}
        min={min}
        value={value}
        disabled={!live}
        title={off}
        onKeyDown={(event) => event.stopPropagation()}
        onChange={(event) => {
          const given = Number(event.currentTarget.value);
          if (event.currentTarget.value.trim() !== "" && Number.isFinite(given)) set(whole ? Math.round(given) : given);
          else event.currentTarget.value = String(value);
        }}
      />
    </label>
  );
  return (
    <PromptForm prompt={prompt} onPrompt={setPrompt} perLine={60} enter="Enter writes the texts anew">
      {field("temperature", temperature, setTemperature, 0.1, 0, false)}
      {field("seed", seed, setSeed, 1, 0, true)}
      {field("tokens", n_tokens, setLength, 10, 1, true)}
    </PromptForm>
  );
}

/** As useRequest, but one question at a time: what changes while the answer is under way is asked together, after it. */
function useNewest<Result>(method: string, params: Params): Asked<Result> {
  const [asking, setAsking] = useState(params);
  const asked = useRequest<Result>(method, asking);
  const wanted = JSON.stringify(params);
  useEffect(() => {
    if (!asked.waiting && JSON.stringify(asking) !== wanted) setAsking(JSON.parse(wanted) as Params);
  }, [asked.waiting, asking, wanted]);
  return asked;
}

export default widget(SteeringPanel, { name: "sw-steering-panel", css, keys: KEYS });
