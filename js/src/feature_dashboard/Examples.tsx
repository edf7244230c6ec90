// The examples of one group: a gutter with the peak's value and token, the text coloured on the feature's own maximum.
// Snippets stand with their peaks under each other, as in a concordance.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { activationShade } from "../shared/colour";
import { alike, three } from "../shared/format";
import { usePlace } from "../shared/host";
import { inQuotes, TokenStrip } from "../shared/tokens";
import { type Example, part, type Width } from "./answers";

export interface Pointed {
  example: Example;
  index: number;
  at: DOMRect;
}

interface Props {
  examples: readonly Example[];
  width: Width;
  max: number;
  showSpaces: boolean;
  /** What an example shows when it is opened. */
  more?: string;
  onPoint: (pointed: Pointed | null) => void;
}

export function Examples({ examples, width, max, showSpaces, more = "the whole context", onPoint }: Props) {
  const list = useRef<HTMLOListElement>(null);
  const [room, setRoom] = useState(0);
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  // A list that was hidden (a closed tab) had no width, and its peaks could not be put under each other.
  useEffect(() => {
    if (!list.current || typeof ResizeObserver === "undefined") return;
    const observer = new ResizeObserver(([entry]) => setRoom(entry && entry.contentRect.width > 0 ? 1 : 0));
    observer.observe(list.current);
    return () => observer.disconnect();
  }, []);
  const format = useMemo(() => alike(examples.map(({ value }) => value)), [examples]);
  const toggle = (key: string) => {
    const next = new Set(open);
    if (!next.delete(key)) next.add(key);
    setOpen(next);
  };
  return (
    <ol class="sw-fd-examples" ref={list} aria-label="Examples">
      {examples.map((example) => (
        <Line
          key={example.key}
          {...{ example, max, format, showSpaces, more, onPoint, room }}
          width={open.has(example.key) ? "full" : width}
          open={open.has(example.key)}
          onToggle={() => toggle(example.key)}
        />
      ))}
    </ol>
  );
}

interface LineProps {
  example: Example;
  width: Width;
  open: boolean;
  max: number;
  /** Of the values in the gutter. */
  format: (value: number) => string;
  showSpaces: boolean;
  more: string;
  room: number;
  onToggle: () => void;
  onPoint: (pointed: Pointed | null) => void;
}

function Line({ example, width, open, max, format, showSpaces, more, room, onToggle, onPoint }: LineProps) {
  const { theme } = usePlace();
  const text = useRef<HTMLDivElement>(null);
  const [from, to] = useMemo(() => part(example, width), [example, width]);
  const tokens = useMemo(() => example.tokens.slice(from, to), [example, from, to]);
  const oneLine = width === "snippet";
  const peak = example.peak - from;
  useLayoutEffect(() => {
    const strip = text.current?.firstElementChild as HTMLElement | null;
    const token = strip?.querySelector<HTMLElement>(`[data-i="${peak}"]`);
    if (!strip || !token) return;
    // Half of the room is CSS's to know; the rest does not change with it.
    strip.style.marginLeft = oneLine ? `calc(50% - ${token.offsetLeft + token.offsetWidth / 2}px)` : "";
  }, [tokens, oneLine, peak, showSpaces, room]);
  const value = (index: number) => example.values[from + index] ?? 0;
  const named = inQuotes(example.tokens[example.peak]!);
  return (
    <li class={`sw-fd-example ${open ? "sw-fd-open" : ""}`}>
      <button
        class="sw-fd-gutter"
        type="button"
        aria-expanded={open}
        aria-label={`${three(example.value)} on ${named}, token ${example.position} of its context; ${open ? "fold" : `show ${more}`}`}
        title={open ? "fold" : `show ${more}`}
        onClick={onToggle}
      >
        <span class="sw-number">{format(example.value)}</span>
        <span class="sw-mono sw-fd-peak">{named}</span>
      </button>
      <div
        ref={text}
        class={oneLine ? "sw-fd-text sw-fd-snippet" : "sw-fd-text"}
        onClick={() => {
          if (getSelection()?.isCollapsed !== false) onToggle();
        }}
      >
        <TokenStrip
          tokens={tokens}
          shade={(index) => activationShade(value(index), max, theme)}
          describe={(index) => `${inQuotes(tokens[index]!)}, activation ${three(value(index))}`}
          mark={peak}
          showSpaces={showSpaces}
          oneLine={oneLine}
          label={`Example, ${three(example.value)} on ${named}`}
          onHover={(index, at) => onPoint(index !== null && at ? { example, index: from + index, at } : null)}
        />
      </div>
    </li>
  );
}
