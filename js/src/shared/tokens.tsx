// Tokens exactly as the model sees them. Untrusted text: it only ever becomes text nodes. No gap between tokens; a newline
// is a glyph and a break; what has no shape of its own (control and zero-width characters) is named by its number.

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Shade } from "./colour";
import { useDomId } from "./host";

export interface Token {
  text: string;
  special?: boolean;
  /** `text` is the hex of bytes that are not a character on their own. */
  hex?: boolean;
}

interface StripProps {
  tokens: readonly Token[];
  /** The ground and text colour of token i. */
  shade?: (index: number) => Shade | null;
  /** The sentence a screen reader says for token i, and what "never colour alone" stands on. */
  describe?: (index: number) => string;
  selected?: number | null;
  /** Tokens drawn apart: the peak of an example, the first divergence of two texts. */
  mark?: number | null;
  showSpaces?: boolean;
  /** Newlines keep their glyph and lose their break. */
  oneLine?: boolean;
  label: string;
  onSelect?: (index: number | null) => void;
  /** `null` when the pointer or the focus leaves. */
  onHover?: (index: number | null, at: DOMRect | null) => void;
}

/** A line of tokens. Where there is something to select or to point at, arrows walk, Enter selects, Esc lets go. */
export function TokenStrip(props: StripProps) {
  const { tokens, shade, describe, selected = null, mark = null, showSpaces = false, oneLine = false, label, onSelect, onHover } = props;
  const box = useRef<HTMLDivElement>(null);
  const id = useDomId();
  const walks = onSelect !== undefined || onHover !== undefined;
  // Tokens that can be walked to and not chosen are pictures with a description; those of plain text are text.
  const role = onSelect ? "option" : walks ? "img" : undefined;
  const focused = useRef(-1);

  useEffect(() => {
    focused.current = selected ?? -1;
  }, [selected, tokens]);

  const at = (index: number) => box.current?.children[index] as HTMLElement | undefined;
  const walk = (index: number) => {
    const next = Math.max(0, Math.min(tokens.length - 1, index));
    at(focused.current)?.classList.remove("sw-token-focus");
    focused.current = next;
    const token = at(next);
    token?.classList.add("sw-token-focus");
    box.current?.setAttribute("aria-activedescendant", `${id}-${next}`);
    onHover?.(next, token?.getBoundingClientRect() ?? null);
  };
  const leave = () => {
    at(focused.current)?.classList.remove("sw-token-focus");
    onHover?.(null, null);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const steps: Record<string, number> = { ArrowRight: focused.current + 1, ArrowLeft: focused.current - 1, Home: 0, End: tokens.length - 1 };
    const step = steps[event.key];
    if (step !== undefined) walk(step);
    else if (event.key === "Enter" && focused.current >= 0) onSelect?.(focused.current);
    else if (event.key === "Escape") {
      onSelect?.(null);
      leave();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const indexOf = (event: Event): number | null => {
    const token = (event.target as Element).closest<HTMLElement>("[data-i]");
    return token && box.current?.contains(token) ? Number(token.dataset.i) : null;
  };

  return (
    <div
      ref={box}
      class="sw-tokens"
      role={onSelect ? "listbox" : "group"}
      aria-label={label}
      tabIndex={walks ? 0 : undefined}
      onKeyDown={walks ? onKeyDown : undefined}
      onBlur={leave}
      onClick={(event) => {
        const index = indexOf(event);
        if (index !== null) onSelect?.(index);
      }}
      onMouseOver={(event) => {
        const index = indexOf(event);
        if (index !== null) onHover?.(index, at(index)?.getBoundingClientRect() ?? null);
      }}
      onMouseLeave={() => onHover?.(null, null)}
    >
      {tokens.map((token, index) => {
        const shaded = shade?.(index) ?? undefined;
        return (
          <span
            key={index}
            id={walks ? `${id}-${index}` : undefined}
            data-i={index}
            class={tokenClass(token, { selected: index === selected, mark: index === mark, shaded: shaded !== undefined })}
            role={role}
            aria-selected={onSelect ? index === selected : undefined}
            aria-label={walks ? (describe?.(index) ?? inQuotes(token)) : undefined}
            style={shaded}
          >
            {glyphs(token, showSpaces, oneLine)}
          </span>
        );
      })}
    </div>
  );
}

function tokenClass(token: Token, drawn: { selected: boolean; mark: boolean; shaded: boolean }): string {
  const { special = false, hex = false } = token;
  const kinds = Object.entries({ special, hex, ...drawn }).filter(([, holds]) => holds);
  return ["sw-token", ...kinds.map(([kind]) => `sw-token-${kind}`)].join(" ");
}

const SHAPELESS = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]/u;
const PIECES = /\n|[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]/gu;

/** The text of a token as nodes: pieces of text, newline glyphs with their break, numbers for the shapeless. */
export function glyphs(token: Token, showSpaces: boolean, oneLine = false): JSX.Element[] | string {
  const text = token.text;
  const plain = (piece: string) => (showSpaces ? piece.replaceAll(" ", "\u00b7") : piece);
  if (!text.includes("\n") && !SHAPELESS.test(text)) return plain(text);
  const parts: JSX.Element[] = [];
  let from = 0;
  for (const match of text.matchAll(PIECES)) {
    if (match.index > from) parts.push(<>{plain(text.slice(from, match.index))}</>);
    const character = match[0];
    from = match.index + character.length;
    if (character === "\n") parts.push(<><span class="sw-glyph">{"\u21b5"}</span>{oneLine ? "" : "\n"}</>);
    else if (character === "\t") parts.push(<><span class="sw-glyph">{"\u21e5"}</span>{"\t"}</>);
    else parts.push(<span class="sw-chip">{numberOf(character)}</span>);
  }
  if (from < text.length) parts.push(<>{plain(text.slice(from))}</>);
  return parts;
}

/** A token in a line of prose, in quotes where it is text: " bridge", ↵, <0xC3>. */
export function inQuotes(token: Token): string {
  if (token.special) return token.text;
  if (token.hex) return `<0x${token.text}>`;
  const named = token.text.replaceAll("\n", "\u21b5").replace(PIECES, numberOf);
  return `\u201c${named}\u201d`;
}

function numberOf(character: string): string {
  return `U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`;
}
