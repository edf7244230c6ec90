// All features as rows, only those in sight drawn. The rows are a grid: arrows and j/k walk, the selected row is in view.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Words } from "../feature_dashboard/Words";
import { alike, percent, percentsAlike, three } from "../shared/format";
import { Spark } from "../shared/histogram";
import { useDomId } from "../shared/host";
import { Term, type TermName, TermOf } from "../shared/terms";
import type { Sort, Table } from "./rows";

const ROW = 28;
const BEYOND = 8;

interface Props {
  table: Table;
  rows: Uint32Array;
  /** What was searched: a new search, as a new order, shows its first rows and not where the selected one went. */
  searched: unknown;
  selected: number;
  sort: Sort;
  descending: boolean;
  /** False where a row's dashboard cannot be shown. */
  available: (feature: number) => boolean;
  onSelect: (feature: number) => void;
  onSort: (sort: Sort, descending: boolean) => void;
}

interface Column {
  sort?: Sort;
  name: string;
  term?: TermName;
  class: string;
}

const COLUMNS: readonly Column[] = [
  { sort: "feature", name: "#", class: "sw-fb-id" },
  { name: "activations", class: "sw-fb-spark" },
  { sort: "density", name: "density", term: "density", class: "sw-number" },
  { sort: "max", name: "max", term: "max", class: "sw-number" },
  { sort: "mean", name: "mean", term: "mean", class: "sw-number sw-fb-wide" },
  { sort: "cosine", name: "enc/dec", term: "encoder/decoder cosine", class: "sw-number sw-fb-wide" },
  { name: "fires on", class: "sw-fb-words" },
];

export function FeatureTable({ table, rows, searched, selected, sort, descending, available, onSelect, onSort }: Props) {
  const grid = useRef<HTMLDivElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const order = `${sort} ${descending}`;
  const shown = useRef({ searched, order });
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(560);
  const id = useDomId(); // two browsers on one page have the same features
  const place = rows.indexOf(selected);
  // Of all rows and not of those in sight: scrolling must not change how a number is written.
  const formats = useMemo(
    () => ({ density: percentsAlike(table.density), max: alike(table.max), mean: alike(table.mean), cosine: alike(table.cosine) }),
    [table],
  );

  useEffect(() => {
    if (!scroller.current || typeof ResizeObserver === "undefined") return;
    const observer = new ResizeObserver(() => {
      if (scroller.current && scroller.current.clientHeight > 0) setHeight(scroller.current.clientHeight);
    });
    observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    if (shown.current.searched !== searched || shown.current.order !== order) {
      shown.current = { searched, order };
      box.scrollTop = 0;
      setTop(0);
      return;
    }
    if (place < 0) return;
    const room = box.clientHeight || height;
    if (place * ROW >= box.scrollTop && (place + 1) * ROW <= box.scrollTop + room) return;
    const near = Math.abs(place * ROW - box.scrollTop - room / 2) < room; // one step: move as little as possible
    box.scrollTop = near ? (place * ROW < box.scrollTop ? place * ROW : (place + 1) * ROW - room) : (place - Math.floor(room / ROW / 2)) * ROW;
    setTop(box.scrollTop);
  }, [place, rows, searched, order, height]);

  const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW) + BEYOND);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(height / ROW) - 1);
    const steps: Record<string, number> = { ArrowDown: place + 1, ArrowUp: place - 1, PageDown: place + page, PageUp: place - page, Home: 0, End: rows.length - 1 };
    const step = steps[event.key];
    if (step === undefined || rows.length === 0) return;
    onSelect(rows[Math.max(0, Math.min(rows.length - 1, step))]!);
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div
      class="sw-fb-table"
      ref={grid}
      role="grid"
      aria-label="Features"
      aria-rowcount={rows.length + 1}
      aria-activedescendant={place >= first && place < last ? `${id}-${selected}` : undefined}
      tabIndex={0}
      onKeyDown={onKeyDown}
    >
      <div class="sw-fb-row sw-fb-head sw-label sw-muted" role="row" aria-rowindex={1}>
        {COLUMNS.map((column) => (
          <Head key={column.name} {...{ column, sort, descending, onSort }} />
        ))}
      </div>
      <div
        class="sw-fb-scroll"
        ref={scroller}
        role="rowgroup"
        tabIndex={-1} // a click on a row lands here; the keys belong to the grid
        onFocus={() => grid.current?.focus({ preventScroll: true })}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      >
        <div role="presentation" style={{ height: `${rows.length * ROW}px` }}>
          <div role="presentation" style={{ transform: `translateY(${first * ROW}px)` }}>
            {Array.from(rows.subarray(first, last), (feature, i) => (
              <Row
                key={feature}
                {...{ table, formats, feature, onSelect }}
                id={`${id}-${feature}`}
                index={first + i + 2}
                selected={feature === selected}
                off={!available(feature)}
              />
            ))}
          </div>
        </div>
      </div>
    </div>
  );
}

function Head({ column, sort, descending, onSort }: { column: Column } & Pick<Props, "sort" | "descending" | "onSort">) {
  const mine = column.sort !== undefined && column.sort === sort;
  const button = (describedBy?: string) => (
    <button
      class="sw-fb-sort"
      type="button"
      aria-label={`sort by ${column.term ?? "feature number"}`}
      aria-describedby={describedBy}
      onClick={() => onSort(column.sort!, mine ? !descending : column.sort !== "feature")}
    >
      {mine ? (descending ? "\u25be" : "\u25b4") : ""}
      {column.name}
    </button>
  );
  return (
    <div class={column.class} role="columnheader" aria-sort={mine ? (descending ? "descending" : "ascending") : undefined}>
      {column.sort === undefined ? column.name : column.term ? <TermOf name={column.term}>{button}</TermOf> : button()}
    </div>
  );
}

interface RowProps {
  table: Table;
  formats: Record<"density" | "max" | "mean" | "cosine", (value: number | undefined) => string>;
  feature: number;
  id: string;
  index: number;
  selected: boolean;
  off: boolean;
  onSelect: (feature: number) => void;
}

function Row({ table, formats, feature, id, index, selected, off, onSelect }: RowProps) {
  const dead = table.count[feature] === 0;
  const flags = table.flagsOf(feature);
  return (
    <div
      class={`sw-fb-row ${selected ? "sw-fb-selected" : ""} ${off ? "sw-fb-off" : ""}`}
      id={id}
      role="row"
      aria-rowindex={index}
      aria-selected={selected}
      title={off ? "not recorded with this page" : undefined}
      onClick={() => onSelect(feature)}
    >
      <div class="sw-fb-id sw-mono" role="gridcell">#{feature}</div>
      <div class="sw-fb-spark" role="gridcell"><Spark heights={table.spark(feature)} /></div>
      <div class="sw-number" role="gridcell">{formats.density(table.density[feature])}</div>
      <div class="sw-number" role="gridcell">{dead ? "\u2013" : formats.max(table.max[feature])}</div>
      <div class="sw-number sw-fb-wide" role="gridcell">{dead ? "\u2013" : formats.mean(table.mean[feature])}</div>
      <div class="sw-number sw-fb-wide" role="gridcell">{formats.cosine(table.cosine[feature])}</div>
      <div class="sw-fb-words sw-mono" role="gridcell">
        {flags.map((bit) => (
          <span class="sw-fb-flag" key={bit} title={table.meanings[bit]}>{table.flags[bit]}</span>
        ))}
        <Words tokens={table.tokens(feature)} />
      </div>
    </div>
  );
}

/** What the table says of a feature, for where no more of it is at hand. */
export function Glimpse({ table, feature }: { table: Table; feature: number }) {
  const dead = table.count[feature] === 0;
  const measures: [TermName, string][] = [
    ["density", percent(table.density[feature])],
    ["max", dead ? "\u2013" : three(table.max[feature])],
    ["mean", dead ? "\u2013" : three(table.mean[feature])],
    ["encoder/decoder cosine", three(table.cosine[feature])],
  ];
  return (
    <>
      <p class="sw-row sw-fd-measures">
        {measures.map(([name, value]) => (
          <span key={name}><Term name={name} /> <b>{value}</b></span>
        ))}
      </p>
      {!dead && <p class="sw-mono"><Words tokens={table.tokens(feature)} /></p>}
    </>
  );
}
