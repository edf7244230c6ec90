import { useMemo, useState } from "preact/hooks";
import { activationShade } from "../shared/colour";
import { percent, three } from "../shared/format";
import { usePlace, useLive, useRequest, useTrait, widget } from "../shared/host";
import { Foot, Scale, Status, Trouble } from "../shared/parts";
import { PromptForm } from "../shared/prompt";
import { inQuotes, TokenStrip } from "../shared/tokens";
import { FeatureList } from "./FeatureList";
import { HoverCard } from "./HoverCard";
import css from "./look.css";
import { type Exact, type Reading, read, type Result } from "./reading";

const KEYS = "arrows, Home and End walk along the prompt, Enter selects a token, Esc lets go, ? shows these keys";

function TokenHeatmap() {
  const { theme } = usePlace();
  const live = useLive();
  const [prompt, setPrompt] = useTrait<string>("prompt");
  const [feature, setFeature] = useTrait<number | null>("feature");
  const [features, setFeatures] = useTrait<number[]>("features");
  const [token, setToken] = useTrait<number | null>("token");
  const [showSpaces, setShowSpaces] = useState(false);
  const [hovered, setHovered] = useState<{ index: number; at: DOMRect } | null>(null);
  const asked = useRequest<Result>("tokens", { prompt });
  // Where more features are active than travel with the tokens, the chosen ones are asked for.
  const chosen = [...new Set(feature === null ? features : [...features, feature])].sort((a, b) => a - b);
  const part = asked.answer?.result.whole === false && !asked.waiting;
  const exact = useRequest<Exact>("values", part && chosen.length > 0 ? { prompt, features: chosen } : null);
  const reading = useMemo(() => asked.answer && read(asked.answer, exact.answer), [asked.answer, exact.answer]);

  const line = (coloured: number | null) => {
    if (!reading) return null;
    const max = reading.scale(coloured);
    const value = (index: number) => reading.value(index, coloured);
    return (
      <TokenStrip
        tokens={reading.tokens}
        shade={(index) => activationShade(value(index), max, theme)}
        describe={(index) => `${inQuotes(reading.tokens[index]!)}, activation ${three(value(index))}`}
        selected={token !== null && token < reading.n ? token : null}
        showSpaces={showSpaces}
        label={coloured === null ? "Prompt, coloured by the strongest feature of each token" : `Prompt, coloured by feature ${coloured}`}
        onSelect={(index) => setToken(index === token ? null : index)}
        onHover={(index, at) => setHovered(index !== null && at ? { index, at } : null)}
      />
    );
  };
  const near = token ?? hovered?.index ?? null; // a click locks the list, until then it follows the pointer

  return (
    <div class={asked.waiting ? "sw-waiting" : ""}>
      <PromptForm prompt={prompt} onPrompt={setPrompt} perLine={90} enter="Enter shows it">
        <button class="sw-button" type="submit" disabled={!live} title={live ? "Enter does the same" : "Needs Python"}>
          show {"\u23ce"}
        </button>
        <button class="sw-button" type="button" aria-pressed={showSpaces} onClick={() => setShowSpaces(!showSpaces)}>
          spaces
        </button>
      </PromptForm>
      <Status asked={asked} off="Without a kernel: this prompt can be explored, a new one needs Python." />
      {reading && (
        <>
          <div class="sw-row sw-label sw-line-head">
            <ColouredBy {...{ feature, setFeature, reading }} />
            <span class="sw-spacer" />
            <Scale max={reading.scale(feature)} of={reading.scaleOf(feature)} />
          </div>
          {live ? <Trouble asked={exact} /> : exact.error && <p class="sw-status">{notWhole(reading, chosen)}</p>}
          <div class="sw-strip">{line(feature)}</div>
          {features.map((pinned) => (
            <div class="sw-section" key={pinned}>
              <div class="sw-row sw-label sw-line-head">
                <button class="sw-button" type="button" aria-pressed={pinned === feature} onClick={() => setFeature(pinned)}>
                  #{pinned}
                </button>
                <span class="sw-mono sw-ellipsis" title={reading.label(pinned)?.top_tokens}>{reading.label(pinned)?.top_tokens}</span>
                <span class="sw-spacer" />
                <Scale max={reading.scale(pinned)} of={reading.scaleOf(pinned)} />
                <button
                  class="sw-button"
                  type="button"
                  aria-label={`Remove the line of feature ${pinned}`}
                  onClick={() => setFeatures(features.filter((other) => other !== pinned))}
                >
                  {"\u2715"}
                </button>
              </div>
              {line(pinned)}
            </div>
          ))}
          <FeatureList
            reading={reading}
            token={near !== null && near < reading.n ? near : null}
            feature={feature}
            pinned={features}
            onFeature={setFeature}
            onPin={(pinned) => setFeatures([...features, pinned])}
          />
          {hovered && hovered.index < reading.n && (
            <HoverCard reading={reading} index={hovered.index} at={hovered.at} feature={feature} />
          )}
          <Foot code={code({ prompt, feature, features, token })}>
            {reading.result.source} {"\u00b7"} {reading.n} tokens
            {reading.meanProbability ? `, geometric mean probability ${percent(reading.meanProbability)}` : ""}
          </Foot>
        </>
      )}
    </div>
  );
}

function ColouredBy(props: { feature: number | null; setFeature: (feature: number | null) => void; reading: Reading }) {
  const { feature, setFeature, reading } = props;
  if (feature === null) return <span class="sw-muted">coloured by each token&rsquo;s strongest feature; click a token to see them</span>;
  return (
    <>
      <span class="sw-title">#{feature}</span>
      <span class="sw-mono sw-ellipsis" title={reading.label(feature)?.top_tokens}>{reading.label(feature)?.top_tokens}</span>
      {reading.isSilent(feature) && <span class="sw-muted">silent on this prompt</span>}
      <button class="sw-button" type="button" onClick={() => setFeature(null)}>
        all features
      </button>
    </>
  );
}

/** Said in a page that carries less than was chosen in it. */
function notWhole(reading: Reading, chosen: readonly number[]): string {
  const named = chosen.map((feature) => `#${feature}`).join(", ");
  return `${named}: only where among the ${reading.result.k} strongest features of a token; the other values were not recorded with this page.`;
}

interface State {
  prompt: string;
  feature: number | null;
  features: number[];
  token: number | null;
}

function code({ prompt, feature, features, token }: State): string {
  const options = [`prompt=${JSON.stringify(prompt)}`];
  if (feature !== null) options.push(`feature=${feature}`);
  if (features.length > 0) options.push(`features=${JSON.stringify(features)}`);
  if (token !== null) options.push(`token=${token}`);
  return `sw.TokenHeatmap(sae, model, ${options.join(", ")})`;
}

export default widget(TokenHeatmap, { name: "sw-token-heatmap", css, keys: KEYS });
