// "+ add feature": an id, or with an index a word that the feature fires on.

import { useState } from "preact/hooks";
import { percent, three } from "../shared/format";
import { usePlace } from "../shared/host";
import type { Edit, Facts, Place } from "./edits";

interface Found extends Facts {
  feature: number;
}

interface Props {
  place: Place | undefined;
  edits: readonly Edit[];
  onAdd: (feature: number, facts: Facts) => void;
}

export function AddFeature({ place, edits, onAdd }: Props) {
  const { transport } = usePlace();
  const [text, setText] = useState("");
  const [found, setFound] = useState<Found[]>([]);
  const [error, setError] = useState<string | null>(null);
  const add = ({ feature, ...facts }: Found) => {
    if (edits.some((edit) => edit.feature === feature)) {
      setError(`#${feature} is edited already, in a row above.`);
      return;
    }
    onAdd(feature, facts);
    setText("");
    setFound([]);
    setError(null);
  };
  const look = async () => {
    setError(null);
    setFound([]);
    if (text === "") return;
    try {
      const { result } = await transport.request<{ found: Found[] }>("find", { text });
      if (result.found.length === 1) add(result.found[0]!);
      else setFound(result.found);
    } catch (reason) {
      setError((reason as Error).message);
    }
  };
  return (
    <div class="sw-adding">
      <form
        class="sw-row"
        onSubmit={(event) => {
          event.preventDefault();
          void look();
        }}
      >
        <input
          class="sw-input sw-mono sw-add"
          value={text}
          aria-label="Feature to add"
          placeholder={place?.indexed ? "412, or a word it fires on" : "412"}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            event.stopPropagation();
            if (event.key === "Escape") setFound([]);
          }}
        />
        <button class="sw-button" type="submit">
          + add feature
        </button>
        {place && <span class="sw-muted sw-label">0 to {place.d_sae - 1}</span>}
      </form>
      {error && <p class="sw-status sw-status-error" role="alert">{error}</p>}
      {found.length > 0 && (
        <div class="sw-found" role="group" aria-label="Features found">
          {found.map((one) => (
            <button class="sw-button" type="button" key={one.feature} onClick={() => add(one)}>
              <b class="sw-mono">#{one.feature}</b> <span class="sw-mono">{one.top_tokens}</span>{" "}
              <span class="sw-muted">
                max {three(one.max)}, density {percent(one.density)}
              </span>
            </button>
          ))}
        </div>
      )}
    </div>
  );
}
