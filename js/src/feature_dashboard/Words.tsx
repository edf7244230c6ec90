// The tokens a feature fires on, as a list to be read: without the spaces around them, whitespace alone made visible.

import { glyphs, type Token } from "../shared/tokens";

export function Words({ tokens }: { tokens: readonly Token[] }) {
  return (
    <>
      {tokens.map((token, i) => (
        <span key={i}>
          {i > 0 && <span class="sw-muted"> {"\u00b7"} </span>}
          {glyphs({ text: word(token) }, false, true)}
        </span>
      ))}
    </>
  );
}

export function word({ text, hex }: Token): string {
  if (hex) return `<0x${text}>`;
  return text.trim() || text.replaceAll(" ", "\u2423").replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5");
}
