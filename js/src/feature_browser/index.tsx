import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Choice, Dashboard } from "../feature_dashboard/Dashboard";
import type { Group, Width } from "../feature_dashboard/answers";
import { featureKeys } from "../feature_dashboard/keys";
import dashboardCss from "../feature_dashboard/look.css";
import { count } from "../shared/format";
import type { Range } from "../shared/histogram";
import { useLive, useRequest, useTrait, widget } from "../shared/host";
import { Trouble } from "../shared/parts";
import { int32 } from "../shared/transport";
import css from "./look.css";
import { numberIn, type Scored } from "./matching";
import { listed, type MatchesResult, readMatches, readTable, searchHere, type Sort, type Table, type TableResult } from "./rows";
import { FeatureTable, Glimpse } from "./Table";

const KEYS = "j next row, k previous, / search, arrows, Page Up and Down walk the table, Shift + arrows widen a range of the histogram, Esc lets go, ? shows these keys";

function FeatureBrowser() {
  const live = useLive();
  const [name, setName] = useTrait<string>("index_name");
  const [names] = useTrait<string[]>("_names");
  const [recorded] = useTrait<number[]>("_recorded");
  const [window] = useTrait<number>("_window");
  const [feature, setFeature] = useTrait<number>("feature");
  const [range, setRange] = useTrait<Range | null>("range");
  const [group, setGroup] = useTrait<Group>("group");
  const [context, setContext] = useTrait<Width>("context");
  const [sort, setSort] = useTrait<Sort>("sort");
  const [descending, setDescending] = useTrait<boolean>("descending");
  const [query, setQuery] = useTrait<string>("query");
  const [hideDead, setHideDead] = useTrait<boolean>("hide_dead");
  const [hideDense, setHideDense] = useTrait<boolean>("hide_dense");
  const [onlyRecorded, setOnlyRecorded] = useState(false);
  const field = useRef<HTMLInputElement>(null);

  const asked = useRequest<TableResult>("table", { index: name });
  const table = useMemo(() => asked.answer && readTable(asked.answer), [asked.answer]);
  const search = useSearch(name, query, table);
  const rows = useMemo(
    () => table && listed(table, { sort, descending, hideDead, hideDense, only: onlyRecorded ? recorded : null, found: search.found }),
    [table, sort, descending, hideDead, hideDense, onlyRecorded, recorded, search.found],
  );

  const available = (other: number) => live || recorded.includes(other);
  const choose = (other: number) => {
    if (other !== feature) setRange(null); // it was in the units of another feature
    setFeature(other);
  };
  const onStep = (step: 1 | -1) => {
    if (!rows || rows.length === 0) return;
    const from = rows.indexOf(feature);
    for (let n = 1; n <= rows.length; n++) {
      const at = from < 0 && step > 0 ? n - 1 : from + step * n;
      const other = rows[(((at % rows.length) + rows.length) % rows.length)]!;
      if (available(other)) return choose(other);
    }
  };
  const onChoice = (change: Partial<Choice>) => {
    if (change.feature !== undefined) choose(change.feature);
    if (change.range !== undefined) setRange(change.range);
    if (change.group !== undefined) setGroup(change.group);
    if (change.context !== undefined) setContext(change.context);
  };
  return (
    <div onKeyDown={featureKeys({ step: onStep, search: () => field.current?.focus() })}>
      <div class="sw-row">
        {names.length > 1 ? (
          <label class="sw-label sw-muted">
            index{" "}
            <select
              class="sw-input"
              value={name}
              disabled={!live}
              title={live ? undefined : "This page carries one index."}
              onChange={(event) => setName(event.currentTarget.value)}
            >
              {names.map((each) => <option key={each}>{each}</option>)}
            </select>
          </label>
        ) : (
          <span class="sw-muted">{name}</span>
        )}
        {table && <span class="sw-muted">{count(table.n_tokens)} tokens scanned</span>}
      </div>
      <Trouble asked={asked} />
      {!live && table && (
        <p class="sw-status" role="status">
          Without a kernel: {count(recorded.length)} of {count(table.d_sae)} features can be opened, with {window} tokens to
          each side of a peak; the rows of the others are grey. The table is whole.
        </p>
      )}
      {table && rows && (
        <div class="sw-fb">
          <section class="sw-fb-left" aria-label="All features">
            <div class="sw-row sw-label">
              <SearchField field={field} query={query} setQuery={setQuery} />
              {table.flags.includes("dead") && <Check name="hide dead" value={hideDead} setValue={setHideDead} title={meaning(table, "dead")} />}
              {table.flags.includes("dense") && <Check name="hide dense" value={hideDense} setValue={setHideDense} title={meaning(table, "dense")} />}
              {!live && <Check name="only recorded" value={onlyRecorded} setValue={setOnlyRecorded} title="features whose examples this page carries" />}
            </div>
            <p class="sw-label sw-muted sw-fb-said" role="status">
              {search.error ?? said(table, rows, query, live, search.message)}
              {query !== "" && sort !== "match" && (
                <button class="sw-button" type="button" onClick={() => setSort("match")}>best match first</button>
              )}
            </p>
            <FeatureTable
              {...{ table, rows, sort, descending, available }}
              searched={search.found}
              selected={feature}
              onSelect={choose}
              onSort={(by, down) => {
                setSort(by);
                setDescending(down);
              }}
            />
          </section>
          <section class="sw-fb-right" aria-label="The selected feature">
            <Dashboard
              choice={{ feature, range, group, context }}
              d_sae={table.d_sae}
              source={{ index: name }}
              {...{ onChoice, onStep, recorded, window }}
              glimpse={<Glimpse {...{ table, feature }} />}
              code={code({ feature, range, group, context }, { name, names, sort, descending, query, hideDead, hideDense })}
            />
          </section>
        </div>
      )}
    </div>
  );
}

interface Search {
  found: ArrayLike<number> | null;
  message: string | null;
  error: string | null;
}

/** With a kernel the index is asked; without one the best features of every token, as they were recorded. */
function useSearch(index: string, query: string, table: Table | null): Search {
  const live = useLive();
  const asked = useRequest<{ message: string | null }>("search", live && query !== "" ? { index, query } : null);
  const recorded = useRequest<MatchesResult>("matches", live ? null : { index });
  const matches = useMemo(() => recorded.answer && readMatches(recorded.answer), [recorded.answer]);
  return useMemo(() => {
    if (query === "" || !table) return { found: null, message: null, error: null };
    const error = asked.error ?? recorded.error;
    if (error) return { found: [], message: null, error };
    if (!live) return matches ? searchedHere(table, matches, query) : { found: null, message: null, error: null };
    const found = asked.answer ? int32(asked.answer.buffers[0]) : null;
    return { found, message: asked.answer?.result.message ?? null, error: null };
  }, [query, table, live, matches, asked.answer, asked.error, recorded.error]);
}

function searchedHere(table: Table, matches: readonly Scored[], query: string): Search {
  try {
    const found = searchHere(table, matches, query);
    const message = `no token in this page says \u201c${query}\u201d; a text of several tokens is looked for only with Python`;
    return { found, message: found.length === 0 ? message : null, error: null };
  } catch (error) {
    return { found: [], message: null, error: (error as Error).message };
  }
}

function SearchField(props: { field: { current: HTMLInputElement | null }; query: string; setQuery: (query: string) => void }) {
  const { field, query, setQuery } = props;
  // What is being typed, until it rests and becomes the query.
  const [typed, setTyped] = useState<string | null>(null);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const ask = (text: string) => {
    clearTimeout(timer.current);
    setTyped(null);
    if (text !== query) setQuery(text);
  };
  return (
    <input
      class="sw-input sw-mono sw-grow sw-fb-search"
      type="search"
      ref={field}
      value={typed ?? query}
      placeholder="/ a token, or #412"
      aria-label="Search features by a token they fire on, or by number"
      spellcheck={false}
      autocomplete="off"
      onInput={(event) => {
        const text = event.currentTarget.value;
        setTyped(text);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => ask(text), 200);
      }}
      onKeyDown={(event) => {
        event.stopPropagation();
        if (event.key === "Enter") ask(event.currentTarget.value);
        else if (event.key === "Escape") {
          ask("");
          event.currentTarget.blur();
        } else return;
        event.preventDefault();
      }}
    />
  );
}

function Check(props: { name: string; title: string; value: boolean; setValue: (value: boolean) => void }) {
  return (
    <label class="sw-fb-check" title={props.title}>
      <input type="checkbox" checked={props.value} onChange={(event) => props.setValue(event.currentTarget.checked)} /> {props.name}
    </label>
  );
}

function meaning(table: Table, flag: string): string {
  return table.meanings[table.flags.indexOf(flag)] ?? "";
}

function said(table: Table, rows: Uint32Array, query: string, live: boolean, message: string | null): string {
  if (query === "") return `${count(rows.length)} of ${count(table.d_sae)} features`;
  if (message) return message;
  const n = `${count(rows.length)} ${rows.length === 1 ? "feature" : "features"}`;
  const named = numberIn(query);
  if (named.only) return n;
  // "412" names a feature and may be text as well
  if (named.number !== null && rows.length === 1 && rows[0] === named.number) return `${n}, of this number`;
  const active = `${n} active on a token that says \u201c${query}\u201d`;
  return live ? active : `${active}, of each token the best`;
}

interface State {
  name: string;
  names: string[];
  sort: Sort;
  descending: boolean;
  query: string;
  hideDead: boolean;
  hideDense: boolean;
}

function code({ feature, range, group, context }: Choice, state: State): string {
  const options = [`feature=${feature}`];
  if (state.names.length > 1) options.push(`index_name=${JSON.stringify(state.name)}`);
  if (state.sort !== "match") options.push(`sort=${JSON.stringify(state.sort)}`);
  if (state.descending) options.push("descending=True");
  if (state.query) options.push(`query=${JSON.stringify(state.query)}`);
  if (!state.hideDead) options.push("hide_dead=False");
  if (state.hideDense) options.push("hide_dense=True");
  if (range) options.push(`range=[${range.map((end) => Number(end.toPrecision(4))).join(", ")}]`);
  else if (group !== "top") options.push(`group=${JSON.stringify(group)}`);
  if (context !== "snippet") options.push(`context=${JSON.stringify(context)}`);
  return `sw.FeatureBrowser(${state.names.length > 1 ? "indexes" : "index"}, ${options.join(", ")})`;
}

export default widget(FeatureBrowser, {
  name: "sw-feature-browser sw-feature-dashboard", // the dashboard beside the table wears its own sheet
  css: dashboardCss + css,
  keys: KEYS,
});
