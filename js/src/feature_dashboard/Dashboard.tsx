// One feature: what it is, how strongly it fires, what it writes, where it fires. The browser shows this same component
// beside its table; whoever shows it owns what is chosen.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { Card } from "../shared/card";
import { count, percent, three } from "../shared/format";
import { Histogram, type Range } from "../shared/histogram";
import { type Asked, useLive, usePlace, useRequest } from "../shared/host";
import { Foot, Scale, Status, Trouble } from "../shared/parts";
import { Term, type TermName } from "../shared/terms";
import { inQuotes } from "../shared/tokens";
import type { Params } from "../shared/transport";
import { type ExamplesResult, type Feature, type FeatureResult, type Group, type Related, type RelatedResult, readExamples, readFeature, type Width, within } from "./answers";
import { Effects } from "./Effects";
import { Examples, type Pointed } from "./Examples";
import { inWords, Measures, Stepper } from "./Header";
import { Words } from "./Words";

export interface Choice {
  feature: number;
  range: Range | null;
  group: Group;
  context: Width;
}

interface Props {
  choice: Choice;
  /** How many features there are. */
  d_sae: number;
  onChoice: (change: Partial<Choice>) => void;
  onStep: (step: 1 | -1) => void;
  /** Said with every question: the index that is meant, where there are several. */
  source?: Params;
  code: string;
  /** Features that can be shown without a kernel. */
  recorded: readonly number[];
  /** Tokens on each side of a peak that are asked for. */
  window: number;
  /** What is known of a feature that cannot be shown whole. */
  glimpse?: ComponentChildren;
}

const INTERVALS = 5;
const GROUPS: readonly Group[] = ["top", "random", ...Array.from({ length: INTERVALS }, (_, i) => i)];

export function Dashboard(props: Props) {
  const { choice, d_sae, onChoice, onStep, source = {}, code, recorded, window } = props;
  const live = useLive();
  const off = !live && !recorded.includes(choice.feature);
  const asked = useRequest<FeatureResult>("feature", off ? null : { ...source, feature: choice.feature });
  const feature = useMemo(() => asked.answer && readFeature(asked.answer), [asked.answer]);
  return (
    <div class="sw-fd" aria-label={`Feature ${choice.feature}`} role="group">
      <div class="sw-row">
        <span class="sw-title">#{choice.feature}</span>
        {feature?.feature === choice.feature && <span class="sw-fd-tokens sw-mono sw-ellipsis"><Words tokens={feature.tokens.slice(0, 6)} /></span>}
        <span class="sw-spacer" />
        <Stepper feature={choice.feature} {...{ d_sae, onStep }} onFeature={(to) => onChoice({ feature: to })} />
      </div>
      <Status asked={asked} />
      {off && props.glimpse}
      {off && (
        <p class="sw-status" role="status">
          Without a kernel: {recorded.length === 1 ? "one feature" : `${count(recorded.length)} features`} can be opened in this
          page, and #{choice.feature} is not among them. Open the notebook to see it whole.
        </p>
      )}
      {feature && !off && <Whole {...{ feature, choice, onChoice, source, recorded, window }} waiting={asked.waiting} />}
      <Foot code={code}>{feature?.source}</Foot>
    </div>
  );
}

type WholeProps = Pick<Props, "choice" | "onChoice" | "recorded" | "window"> & { feature: Feature; source: Params; waiting: boolean };

function Whole({ feature, choice, onChoice, source, recorded, window, waiting }: WholeProps) {
  const live = useLive();
  const [lastPointed, setPointed] = useState<Pointed | null>(null);
  const [showSpaces, setShowSpaces] = useState(false);
  const { group, range, context } = choice;
  const settled = useSettled(range, 80);
  const asked = useExamples(feature, group, settled, { ...source, window });
  const { examples } = asked;
  const pointed = lastPointed && examples?.includes(lastPointed.example) ? lastPointed : null;
  const silent = feature.count === 0;
  const stale = asked.asked.waiting || JSON.stringify(settled) !== JSON.stringify(range);
  const strength = pointed ? (pointed.example.values[pointed.index] ?? 0) : 0;
  // Pointing at a token moves the marker and nothing else.
  const list = useMemo(
    () =>
      examples && (
        <Examples key={feature.feature} width={context} max={feature.max} onPoint={setPointed} {...{ examples, showSpaces }} />
      ),
    [examples, context, feature, showSpaces],
  );
  return (
    <div class={waiting ? "sw-waiting" : ""}>
      <Measures feature={feature} />
      {feature.flags.map((flag) => (
        <p class="sw-fd-flag" key={flag}>{flag}</p>
      ))}
      <p class="sw-muted">{inWords(feature)}</p>
      <div class="sw-fd-pictures">
        <section aria-label="Activations">
          {!silent && (
            <Histogram
              counts={feature.histogram.counts}
              edges={feature.histogram.edges}
              label="activations"
              marker={strength > 0 ? strength : null}
              brush={range}
              onBrush={(next) => onChoice({ range: next })}
              height={72}
            />
          )}
          <RelatedFeatures {...{ feature, source, recorded }} onFeature={(to) => onChoice({ feature: to })} />
        </section>
        <Effects feature={feature} />
      </div>
      {!silent && (
        <section class="sw-section" aria-label="Examples">
          <div class="sw-row sw-label sw-fd-bar">
            <Groups {...{ feature, group, range, onChoice }} />
            <span class="sw-spacer" />
            <span class="sw-fd-choices" role="group" aria-label="How much text">
              {(["snippet", "sentence", "full"] as const).map((width) => (
                <button class="sw-button" type="button" key={width} aria-pressed={width === context} onClick={() => onChoice({ context: width })}>
                  {width}
                </button>
              ))}
            </span>
            <button class="sw-button" type="button" aria-pressed={showSpaces} onClick={() => setShowSpaces(!showSpaces)}>
              spaces
            </button>
          </div>
          <div class="sw-row sw-label">
            <span class="sw-muted">{describeGroup(feature, group, range, stale ? null : (examples?.length ?? null), live)}</span>
            <span class="sw-spacer" />
            <Scale max={feature.max} of="its max in the index" />
          </div>
          <Trouble asked={asked.asked} />
          <div class={stale ? "sw-waiting" : ""}>{list}</div>
          {pointed && <PointedCard pointed={pointed} strength={strength} max={feature.max} />}
        </section>
      )}
    </div>
  );
}

function Groups({ feature, group, range, onChoice }: Pick<Choice, "group" | "range"> & { feature: Feature; onChoice: Props["onChoice"] }) {
  const button = (value: Group, name: string, title: string) => (
    <button
      class="sw-button"
      type="button"
      key={value}
      title={title}
      aria-pressed={range === null && group === value}
      onClick={() => onChoice({ group: value, range: null })}
    >
      {name}
    </button>
  );
  return (
    <span class="sw-fd-choices" role="group" aria-label="Which examples">
      {button("random", "random", "drawn at random from all of its activations")}
      {button("top", "top", "the strongest, strongest first")}
      {feature.intervals.map(({ low, high, share }, i) =>
        button(i, `${three(low)}\u2013${three(high)}`, `interval ${three(low)} to ${three(high)}, contains ${percent(share)}`),
      )}
      {range && (
        <button class="sw-button" type="button" aria-pressed title="let go of the range" onClick={() => onChoice({ range: null })}>
          {three(range[0])}{"\u2013"}{three(range[1])} {"\u2715"}
        </button>
      )}
    </span>
  );
}

function describeGroup(feature: Feature, group: Group, range: Range | null, shown: number | null, live: boolean): string {
  const n = shown === null ? "examples" : `${shown} ${shown === 1 ? "example" : "examples"}`;
  const from = live ? "" : " of those recorded with this page";
  if (range) return `${n}${from} in the brushed range ${three(range[0])} to ${three(range[1])}, near-identical ones left out`;
  if (group === "random") return `${n} drawn at random from all ${count(feature.count)} activations`;
  if (group === "top") return `${n}, strongest first, near-identical ones left out`;
  const interval = feature.intervals[group];
  if (!interval) return `This feature has ${feature.intervals.length} intervals.`;
  return `${n} from the interval ${three(interval.low)} to ${three(interval.high)}, which contains ${percent(interval.share)} of its activations`;
}

interface RelatedProps {
  feature: Feature;
  source: Params;
  recorded: readonly number[];
  onFeature: (feature: number) => void;
}

/** Two ways of being alike; they take a query of their own, and come when they come. */
function RelatedFeatures({ feature, source, recorded, onFeature }: RelatedProps) {
  const live = useLive();
  const { answer, error } = useRequest<RelatedResult>("related", { ...source, feature: feature.feature });
  if (error) return <p class="sw-muted sw-fd-related">{error}</p>;
  if (!answer) return <div class="sw-fd-related" />;
  const column = (name: TermName, others: Related[]) => (
    <section aria-label={name}>
      <p class="sw-label"><Term name={name} /></p>
      <ol>
        {others.map((other) => {
          const off = !live && !recorded.includes(other.feature);
          return (
            <li key={other.feature}>
              <button
                class="sw-fd-link"
                type="button"
                disabled={off}
                title={off ? "not recorded with this page" : `show feature ${other.feature}`}
                onClick={() => onFeature(other.feature)}
              >
                #{other.feature}
              </button>
              <span class="sw-number">{other.value.toFixed(2)}</span>
              <span class="sw-mono sw-ellipsis" title={other.tokens.map(inQuotes).join(" ")}>
                <Words tokens={other.tokens} />
              </span>
            </li>
          );
        })}
        {others.length === 0 && <li class="sw-muted">none</li>}
      </ol>
    </section>
  );
  return (
    <div class="sw-fd-related">
      {column("similar features", answer.result.decoder)}
      {column("active together", answer.result.coactive)}
    </div>
  );
}

function PointedCard({ pointed, strength, max }: { pointed: Pointed; strength: number; max: number }) {
  const { example, index, at } = pointed;
  return (
    <Card at={at}>
      <b class="sw-mono">{inQuotes(example.tokens[index]!)}</b>{" "}
      {strength > 0 ? `${three(strength)}, ${percent(strength / max)} of its max` : <span class="sw-muted">not active</span>}
      <div class="sw-muted">token {example.position + index - example.peak} of text {example.context}</div>
    </Card>
  );
}

/** Examples of a group or a range. Without a kernel a range is filtered from all that was recorded. */
function useExamples(feature: Feature, group: Group, range: Range | null, source: Params) {
  const live = useLive();
  const silent = feature.count === 0;
  const base = { ...source, feature: feature.feature };
  const local = !live && range !== null;
  const one = useRequest<ExamplesResult>("examples", silent || local ? null : { ...base, ...(range ? { range } : { group }) });
  // As many hooks each time; they ask nothing while there is a kernel.
  const all = GROUPS.map((each) => useRequest<ExamplesResult>("examples", local && !silent ? { ...base, group: each } : null));
  const answers = local ? all : [one];
  const examples = useMemo(() => {
    const read = answers.flatMap(({ answer }) => (answer ? readExamples(answer) : []));
    if (answers.every(({ answer }) => answer === null)) return null;
    return local && range ? within(read, range) : read;
  }, [local, range, ...[one, ...all].map(({ answer }) => answer)]);
  const asked: Asked<unknown> = local ? { ...one, waiting: all.some(({ waiting }) => waiting) } : one;
  return { examples, asked };
}

/** A value once it has stopped changing: dragging asks when it rests. */
function useSettled<Value>(value: Value, milliseconds: number): Value {
  const { model } = usePlace();
  const [settled, setSettled] = useState(value);
  const key = JSON.stringify(value);
  useEffect(() => {
    if (key === JSON.stringify(settled)) return;
    const timer = setTimeout(() => setSettled(() => value), value === null ? 0 : milliseconds);
    return () => clearTimeout(timer);
  }, [key, model, milliseconds]);
  return settled;
}
