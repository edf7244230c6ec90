// The next token before and after: those whose probability changes most, and how far the whole distribution moved,
// beside the same change along random directions.

import { three } from "../shared/format";
import { useLive } from "../shared/host";
import { Bar } from "../shared/parts";
import { Term } from "../shared/terms";
import { inQuotes, type Token } from "../shared/tokens";
import { type Answer, float32 } from "../shared/transport";

interface Result {
  tokens: Token[];
  kl: number;
  kl_control: number;
}

export interface NextToken extends Result {
  before: Float32Array;
  after: Float32Array;
  /** Activations of the edited features on the prompt's last token, before the edit. */
  f: Float32Array;
}

export function nextToken({ result, buffers }: Answer<Result>): NextToken {
  return { ...result, before: float32(buffers[0]), after: float32(buffers[1]), f: float32(buffers[2]) };
}

export type { Result as NextTokenResult };

/** A probability beside others: 31.0 %, 0.2 %, < 0.1 %. */
export function probability(p: number): string {
  return p > 0 && p < 0.001 ? "< 0.1 %" : p > 0.9995 && p < 1 ? "> 99.9 %" : `${(p * 100).toFixed(1)} %`;
}

/** Whether two probabilities are printed differently. */
function differ(before: number, after: number): boolean {
  return probability(before) !== probability(after);
}

/** Whether the edits move any probability so far that it is seen. */
export function isMoved({ before, after }: Pick<NextToken, "before" | "after">): boolean {
  return before.some((p, i) => differ(p, after[i]!));
}

/** What the picture says. */
export function changeOf({ tokens, before, after }: NextToken): string {
  const token = tokens[0];
  if (!token) return "";
  if (!isMoved({ before, after })) return "the next token stays as it is.";
  return `${inQuotes(token)} as the next token goes from ${probability(before[0]!)} to ${probability(after[0]!)}.`;
}

const PRINTED = 0.0005;

/** Tokens worth a row: behind them are those that do not seem to move, or whose probability is printed as none. */
function rowsOf({ tokens, before, after }: NextToken, moved: boolean): number {
  const worth = tokens.map((_, i) => (moved ? differ(before[i]!, after[i]!) : before[i]! >= PRINTED));
  return Math.max(1, worth.lastIndexOf(true) + 1);
}

export function NextTokens({ next, edited }: { next: NextToken; edited: boolean }) {
  const live = useLive();
  const most = Math.max(...next.before, ...next.after);
  const moved = isMoved(next);
  const farthest = Math.max(next.kl, next.kl_control, 1e-9);
  return (
    <>
      <div class={`sw-next ${live ? "sw-next-live" : ""}`} role="list" aria-label={moved ? "Next tokens whose probability changes most" : "Likeliest next tokens"}>
        {next.tokens.slice(0, rowsOf(next, moved)).map((token, i) => (
          <Change key={i} token={token} before={next.before[i]!} after={next.after[i]!} most={most} />
        ))}
      </div>
      {edited && (
        <div class="sw-kl">
          <span>
            <Term name="KL" /> of this edit
          </span>
          <Bar share={next.kl / farthest} />
          <span class="sw-number">{three(next.kl)}</span>
          <span class="sw-muted">nats</span>
          <span>
            of a <Term name="random direction" />
          </span>
          <Bar share={next.kl_control / farthest} />
          <span class="sw-number">{three(next.kl_control)}</span>
          <span class="sw-muted">nats</span>
        </div>
      )}
    </>
  );
}

function Change({ token, before, after, most }: { token: Token; before: number; after: number; most: number }) {
  const [low, high] = before < after ? [before, after] : [after, before];
  const at = (p: number) => `${(most > 0 ? p / most : 0) * 100}%`;
  const same = !differ(before, after);
  const [from, to] = [probability(before), probability(after)];
  return (
    <div class="sw-change" role="listitem" aria-label={`${inQuotes(token)}: ${from}${same ? "" : ` before, ${to} after`}`}>
      <span class="sw-mono sw-ellipsis">{inQuotes(token)}</span>
      <span class="sw-dumbbell" aria-hidden="true">
        <i class="sw-common" style={{ width: at(low) }} />
        <i class={after > before ? "sw-up" : "sw-down"} style={{ left: at(low), width: at(high - low) }} />
        <i class="sw-before" style={{ left: at(before) }} />
      </span>
      <span class="sw-number">{from}</span>
      <span class="sw-muted" aria-hidden="true">{same ? "" : "\u2192"}</span>
      <span class="sw-number">{same ? "" : to}</span>
    </div>
  );
}
