// The prompt and what stands beside it. Enter sends, Shift + Enter breaks the line; the notebook hears neither.

import type { ComponentChildren } from "preact";
import { useLive } from "./host";

interface Props {
  prompt: string;
  onPrompt: (prompt: string) => void;
  /** Characters that fit into a line of it. */
  perLine: number;
  /** What Enter does. */
  enter: string;
  children: ComponentChildren;
}

const MOST_LINES = 4;

export function PromptForm({ prompt, onPrompt, perLine, enter, children }: Props) {
  const live = useLive();
  return (
    <form
      class="sw-row"
      noValidate // the browser would hold a prompt back for a number that is no multiple of its field's step
      onSubmit={(event) => {
        event.preventDefault();
        onPrompt((event.currentTarget.elements.namedItem("prompt") as HTMLTextAreaElement).value);
      }}
    >
      <label class="sw-label sw-muted sw-grow sw-prompt">
        <span>prompt</span>
        <textarea
          class="sw-input"
          name="prompt"
          rows={Math.min(MOST_LINES, linesOf(prompt, perLine))}
          defaultValue={prompt}
          key={prompt}
          disabled={!live}
          title={live ? enter : "This page has no kernel."}
          spellcheck={false}
          onKeyDown={(event) => {
            event.stopPropagation();
            if (event.key !== "Enter" || event.shiftKey) return;
            event.preventDefault();
            event.currentTarget.form?.requestSubmit();
          }}
        />
      </label>
      {children}
    </form>
  );
}

function linesOf(prompt: string, perLine: number): number {
  return prompt.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / perLine)), 0);
}
