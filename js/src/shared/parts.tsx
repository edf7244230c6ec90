// Small pieces every widget uses: the printed scale, sentences about the state, "copy as code".

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { activationShade } from "./colour";
import { three } from "./format";
import { type Asked, useLive, usePlace, useRefusal } from "./host";

/** The scale, always printed: five steps from 0 to `max`, and what `max` is. */
export function Scale({ max, of }: { max: number; of: string }) {
  const { theme } = usePlace();
  if (max <= 0) return <span class="sw-scale sw-muted">silent here: no colours</span>;
  return (
    <span class="sw-scale" role="img" aria-label={`colour scale from 0 to ${three(max)}, ${of}`}>
      <span>0</span>
      {[0.05, 0.25, 0.5, 0.75, 1].map((ratio) => (
        <i key={ratio} style={{ background: activationShade(ratio, 1, theme)?.background }} />
      ))}
      <span>{three(max)}</span>
      <span class="sw-muted">{of}</span>
    </span>
  );
}

/** One line that says what is going on: an error, a refusal, a late answer, or that this page has no kernel. */
export function Status({ asked, off }: { asked?: Asked<unknown> | undefined; off?: string | undefined }) {
  const live = useLive();
  const refusal = useRefusal();
  if (refusal) return <p class="sw-status sw-status-error" role="alert">{refusal}</p>;
  if (asked && (asked.error || asked.late)) return <Trouble asked={asked} />;
  if (!live && off) return <p class="sw-status" role="status">{off}</p>;
  return null;
}

/** The part of `Status` that belongs to one question: its error, or that its answer is late. */
export function Trouble({ asked }: { asked: Asked<unknown> }) {
  if (asked.error) return <p class="sw-status sw-status-error" role="alert">{asked.error}</p>;
  if (!asked.late) return null;
  return (
    <p class="sw-status" role="status">
      No answer for 15 s: the kernel is busy, or it was restarted. If it was, run the cell again to make this live.
    </p>
  );
}

/** Reproduces a state as Python. Where the clipboard is closed to the page, the code is shown instead, selected. */
export function CopyCode({ code }: { code: string }) {
  const [state, setState] = useState<"ready" | "copied" | "shown">("ready");
  useEffect(() => {
    if (state !== "copied") return;
    const timer = setTimeout(() => setState("ready"), 1500);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(code);
      setState("copied");
    } catch {
      setState("shown");
    }
  };
  if (state === "shown") {
    return (
      <input
        class="sw-input sw-code"
        readOnly
        value={code}
        aria-label="This state as Python code"
        ref={(input) => input?.select()}
        onBlur={() => setState("ready")}
      />
    );
  }
  return (
    <button class="sw-button" type="button" onClick={copy}>
      {state === "copied" ? "copied" : "copy as code"}
    </button>
  );
}

/** The last line of a widget: what is shown here, its keys, its code. */
export function Foot({ code, children }: { code?: string | undefined; children?: ComponentChildren }) {
  const { keys } = usePlace();
  return (
    <>
      <div class="sw-row sw-label sw-foot">
        <span class="sw-muted sw-said">{children}</span>
        <button class="sw-button" type="button" aria-expanded={keys.open} onClick={keys.toggle}>
          ? keys
        </button>
        {code !== undefined && <CopyCode code={code} />}
      </div>
      {keys.open && <p class="sw-label sw-muted sw-keys">{keys.text}</p>}
    </>
  );
}

/** A bar whose length is a share of the row's room; the number stands beside it, so it is never alone. */
export function Bar({ share, sign }: { share: number; sign?: "pos" | "neg" | undefined }) {
  const width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return (
    <span class="sw-meter" aria-hidden="true">
      <span class={sign ? `sw-fill-${sign}` : "sw-fill"} style={{ width }} />
    </span>
  );
}
