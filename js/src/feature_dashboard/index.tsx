import type { Range } from "../shared/histogram";
import { useLive, useTrait, widget } from "../shared/host";
import type { Group, Width } from "./answers";
import { type Choice, Dashboard } from "./Dashboard";
import { featureKeys } from "./keys";
import css from "./look.css";

const KEYS = "j next feature, k previous, arrows walk along a text or move a range of the histogram (Shift widens it), Esc lets go, ? shows these keys";

function FeatureDashboard() {
  const [feature, setFeature] = useTrait<number>("feature");
  const [range, setRange] = useTrait<Range | null>("range");
  const [group, setGroup] = useTrait<Group>("group");
  const [context, setContext] = useTrait<Width>("context");
  const [recorded] = useTrait<number[]>("_recorded");
  const [window] = useTrait<number>("_window");
  const [size] = useTrait<number>("_d_sae");
  const live = useLive();

  const onChoice = (change: Partial<Choice>) => {
    // A range is in the units of the feature it was brushed on.
    if (change.feature !== undefined && change.feature !== feature) setRange(null);
    if (change.feature !== undefined) setFeature(change.feature);
    if (change.range !== undefined) setRange(change.range);
    if (change.group !== undefined) setGroup(change.group);
    if (change.context !== undefined) setContext(change.context);
  };
  const onStep = (step: 1 | -1) => {
    const next = live ? (feature + step + size) % size : beside(recorded, feature, step);
    onChoice({ feature: next });
  };
  return (
    <div onKeyDown={featureKeys({ step: onStep })}>
      <Dashboard
        choice={{ feature, range, group, context }}
        d_sae={size}
        {...{ onChoice, onStep, recorded, window }}
        code={code({ feature, range, group, context })}
      />
    </div>
  );
}

/** The next of the recorded features, round and round; from one that is not recorded too. */
function beside(recorded: readonly number[], feature: number, step: 1 | -1): number {
  const sorted = [...recorded].sort((a, b) => step * (a - b));
  return sorted.find((other) => step * (other - feature) > 0) ?? sorted[0] ?? feature;
}

function code({ feature, range, group, context }: Choice): string {
  const options = [`feature=${feature}`];
  if (range) options.push(`range=[${range.map((end) => Number(end.toPrecision(4))).join(", ")}]`);
  else if (group !== "top") options.push(`group=${JSON.stringify(group)}`);
  if (context !== "snippet") options.push(`context=${JSON.stringify(context)}`);
  return `sw.FeatureDashboard(index, ${options.join(", ")})`;
}

export default widget(FeatureDashboard, { name: "sw-feature-dashboard", css, keys: KEYS });
