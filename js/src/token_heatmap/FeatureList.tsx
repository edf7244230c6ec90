// The features of one token, strongest first: id, activation, bar, what it usually fires on, how often.

import { useState } from "preact/hooks";
import { alike, percentsAlike } from "../shared/format";
import { Bar } from "../shared/parts";
import { Term } from "../shared/terms";
import { inQuotes } from "../shared/tokens";
import type { Active, Reading } from "./reading";

interface Props {
  reading: Reading;
  token: number | null;
  feature: number | null;
  pinned: number[];
  onFeature: (feature: number) => void;
  onPin: (feature: number) => void;
}

const FIRST = 8;

export function FeatureList({ reading, token, feature, pinned, onFeature, onPin }: Props) {
  const [order, setOrder] = useState<"activation" | "density">("activation");
  const [all, setAll] = useState(false);
  if (token === null) return null;
  const active = reading.active(token);
  const known = active.some((row) => reading.label(row.feature));
  const density = (row: Active) => reading.label(row.feature)?.density ?? 1;
  const sorted = order === "density" ? active.toSorted((a, b) => density(a) - density(b)) : active;
  const rows = all ? sorted : sorted.slice(0, FIRST);
  const most = active[0]?.value ?? 1;
  const activation = alike(active.map(({ value }) => value));
  const percentage = percentsAlike(active.map((row) => reading.label(row.feature)?.density ?? 0));
  const full = !reading.result.whole && active.length === reading.result.k; // there may be more than were sent
  return (
    <section class="sw-section" aria-label={`Features on ${inQuotes(reading.tokens[token]!)}`}>
      <div class="sw-row sw-label sw-muted">
        <span>
          features on <b class="sw-mono">{inQuotes(reading.tokens[token]!)}</b>, token {token}
        </span>
        <span class="sw-spacer" />
        {known && (
          <label>
            sort by{" "}
            <select class="sw-input" value={order} onChange={(event) => setOrder(event.currentTarget.value as typeof order)}>
              <option value="activation">activation</option>
              <option value="density">density, rarest first</option>
            </select>
          </label>
        )}
      </div>
      {active.length === 0 && (
        <p class="sw-muted">
          {reading.result.excluded.includes(token) ? `Position ${token} is left out of this SAE.` : "No feature is active here."}
        </p>
      )}
      {active.length > 0 && (
        <table class="sw-features">
          <thead class="sw-label sw-muted">
            <tr>
              <th scope="col">feature</th>
              <th scope="col" class="sw-number"><Term name="activation" /></th>
              <th scope="col" class="sw-wide" />
              {known && <th scope="col">fires on</th>}
              {known && <th scope="col" class="sw-number"><Term name="density" /></th>}
              <th scope="col" />
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.feature}>
                <td>
                  <button class="sw-button sw-id" type="button" aria-pressed={row.feature === feature} onClick={() => onFeature(row.feature)}>
                    #{row.feature}
                  </button>
                </td>
                <td class="sw-number">{activation(row.value)}</td>
                <td class="sw-wide"><Bar share={row.value / most} /></td>
                {known && <td class="sw-mono sw-ellipsis">{reading.label(row.feature)?.top_tokens}</td>}
                {known && <td class="sw-number">{percentage(reading.label(row.feature)?.density)}</td>}
                <td>
                  <button
                    class="sw-button"
                    type="button"
                    disabled={pinned.includes(row.feature)}
                    aria-label={`Give feature ${row.feature} a line of its own`}
                    onClick={() => onPin(row.feature)}
                  >
                    + line
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {sorted.length > FIRST && (
        <button class="sw-button" type="button" onClick={() => setAll(!all)}>
          {all ? `the first ${FIRST}` : `${full ? "the strongest" : "all"} ${sorted.length}`}
        </button>
      )}
    </section>
  );
}
