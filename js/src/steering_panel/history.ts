// Undo for edits, whoever made them: a slider, a key, a cell of the notebook.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { Edit } from "./edits";

const AT_ONCE = 800; // ms: moves of one slider that follow each other so closely are one step
const STEPS = 100;

export interface Undo {
  steps: number;
  back: () => void;
}

export function useUndo(edits: Edit[], set: (edits: Edit[]) => void): Undo {
  const past = useRef<Edit[][]>([]);
  const now = useRef(edits);
  const changed = useRef(0);
  const [steps, setSteps] = useState(0);
  useEffect(() => {
    const before = now.current;
    if (JSON.stringify(before) === JSON.stringify(edits)) return;
    now.current = edits;
    const at = Date.now();
    if (!(at - changed.current < AT_ONCE && sameRows(before, edits) && past.current.length > 0)) past.current.push(before);
    if (past.current.length > STEPS) past.current.shift();
    changed.current = at;
    setSteps(past.current.length);
  }, [edits]);
  const back = useCallback(() => {
    const before = past.current.pop();
    if (!before) return;
    now.current = before; // so that the way back is no step itself
    changed.current = 0;
    setSteps(past.current.length);
    set(before);
  }, [set]);
  return { steps, back };
}

/** Whether only values differ. */
function sameRows(a: Edit[], b: Edit[]): boolean {
  return a.length === b.length && a.every((edit, i) => edit.feature === b[i]!.feature && edit.mode === b[i]!.mode);
}
