// How far a run is, and its buttons.

import { useState } from "preact/hooks";
import { duration, short } from "../shared/format";
import { useLive, usePlace } from "../shared/host";
import { Term } from "../shared/terms";
import { epochOf, isOver, type Moving } from "./said";

export function Going({ progress }: { progress: Moving }) {
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

export function Buttons({ progress }: { progress: Moving }) {
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
          {asked === "resume" ? "going on\u2026" : "\u275a\u275a pause"}
        </button>
      )}
      <button class="sw-button" type="button" disabled={off || asked === "stop"} title={reason} onClick={() => ask("stop")}>
        {asked === "stop" ? "stopping\u2026" : "\u25a0 stop"}
      </button>
      {error && <span class="sw-status-error" role="alert">{error}</span>}
    </span>
  );
}
