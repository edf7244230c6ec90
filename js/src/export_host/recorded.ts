// A model without a kernel: traits in memory, requests answered from what was recorded.

import { keyOf, type Model, type Params } from "../shared/transport";

export interface Recorded {
  method: string;
  params: Params;
  result?: unknown;
  /** base64 */
  buffers: string[];
  /** What a live view would have been told instead. */
  error?: string;
}

const NOT_RECORDED = "This page has no kernel and this answer was not recorded with it. Open the notebook to ask for it.";

export function recordedModel(initial: Record<string, unknown>, answers: Recorded[]): Model {
  const state = { ...initial };
  const heard = new Map<string, Set<(...values: unknown[]) => void>>();
  const recorded = new Map(answers.map((answer) => [keyOf(answer.method, answer.params), answer]));
  const emit = (event: string, ...values: unknown[]) => {
    for (const callback of heard.get(event) ?? []) callback(...values);
  };
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      emit(`change:${name}`);
      emit("change");
    },
    save_changes: () => undefined,
    on(event, callback) {
      heard.set(event, (heard.get(event) ?? new Set()).add(callback as (...values: unknown[]) => void));
    },
    off(event, callback) {
      heard.get(event)?.delete(callback as (...values: unknown[]) => void);
    },
    send(content) {
      const { kind, id, method, params } = content as { kind: string; id: number; method: string; params: Params };
      if (kind !== "request") return;
      const answer = recorded.get(keyOf(method, params));
      // Answers come later, as they do from a kernel: a view may not rely on the order.
      queueMicrotask(() => {
        if (answer?.error !== undefined) emit("msg:custom", { kind: "error", id, message: answer.error }, []);
        else if (answer) emit("msg:custom", { kind: "answer", id, result: answer.result }, answer.buffers.map(bytes));
        else emit("msg:custom", { kind: "error", id, message: NOT_RECORDED }, []);
      });
    },
  };
}

function bytes(base64: string): DataView {
  const text = atob(base64);
  const view = new DataView(new ArrayBuffer(text.length));
  for (let i = 0; i < text.length; i++) view.setUint8(i, text.charCodeAt(i));
  return view;
}
