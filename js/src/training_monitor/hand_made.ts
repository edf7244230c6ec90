// A run's model that a test moves by hand, and what a kernel would answer about it.

import type { Model } from "../shared/transport";
import monitor from "./index";

export const COLUMNS = ["step", "tokens", "epoch", "seconds", "loss", "explained_variance", "l0", "ce_loss_recovered", "dead_fraction", "vectors_per_second"];

function row(i: number): number[] {
  return [10 * (i + 1), 1000 * (i + 1), 0.1 * i, i, 1 / (i + 1), 0.1 * i, 32, i % 3 === 2 ? 0.9 : Number.NaN, 0.02, 5000];
}

export function piece(since: number, to: number, shift = 0): { result: unknown; buffers: DataView[] } {
  const numbers = Float32Array.from(Array.from({ length: to - since }, (_, i) => row(since + i)).flat());
  const bytes = new Uint8Array(shift + numbers.byteLength); // a host's buffers begin anywhere
  bytes.set(new Uint8Array(numbers.buffer), shift);
  return { result: { since, columns: COLUMNS, dead_window: 50_000 }, buffers: [new DataView(bytes.buffer, shift)] };
}

export const PROGRESS = {
  state: "running", step: 20, n_steps: 100, tokens: 2000, n_tokens: 10_000, epoch: 2.3, n_epochs: 4.06,
  vectors_per_second: 38_123, seconds_left: 15, error: null, rows: 2, skipped_steps: 0,
  events: 0, knobs: { lr: 0.001, sparsity: null, k: 32, revive: true } as Record<string, unknown>,
};
export const ABOUT = { architecture: "topk", d_in: 288, d_sae: 2048, d_looked: 2048, two_sided: false, hook_name: "blocks.2.hook_resid_post", model_name: null, measures_ce_loss: true, reads: false, n_sampled: null };

/** A feature that is silent at the first snapshot, and then has one example more at each, twice as strong: 2, 4, ... */
export function top(feature: number, steps: number[]): { result: any; buffers: DataView[] } {
  const counts = steps.map((_, i) => i);
  const n = counts.reduce((a, b) => a + b, 0);
  const strengths = counts.flatMap((many, i) => Array.from({ length: many }, (_, j) => 2 * i - j));
  const result = {
    feature, n_tokens: 20_000, read: 1, steps, counts, texts: ["the", " bridge"], special: [], hex: [],
    lengths: Array(n).fill(2), peaks: Array(n).fill(1), positions: Array.from({ length: n }, (_, i) => i), contexts: Array(n).fill(3),
  };
  const places = Uint16Array.from({ length: 2 * n }, (_, i) => i % 2);
  const active = Int32Array.from({ length: n }, (_, i) => 2 * i + 1);
  return { result, buffers: [places, active, Float32Array.from(strengths)].map(({ buffer }) => new DataView(buffer)) };
}

/** A model of the host's kind: it keeps who listens, and answers what is asked as a kernel with `there` rows would. */
export function handMade(progress: object = {}, state: object = {}, events: object[] = []) {
  const values: Record<string, unknown> = { progress: { ...PROGRESS, ...progress }, _about: ABOUT, _live: true, _snapshots: [], snapshot_step: null, prompt: "a b", feature: null, ...state };
  const heard = new Map<string, Set<(...given: unknown[]) => void>>();
  const asked: { method: string; params: Record<string, any> }[] = [];
  const emit = (event: string, ...given: unknown[]) => [...(heard.get(event) ?? [])].forEach((callback) => callback(...given));
  const model: Model = {
    get: (name) => values[name],
    set: (name, value) => {
      values[name] = value;
      emit(`change:${name}`);
    },
    save_changes: () => undefined,
    on: (event, callback) => heard.set(event, (heard.get(event) ?? new Set()).add(callback as never)),
    off: (event, callback) => heard.get(event)?.delete(callback as never),
    send(content) {
      const { id, method, params } = content as { id: number; method: string; params: Record<string, any> };
      asked.push({ method, params });
      const there = (values.progress as typeof PROGRESS).rows;
      const changes = { since: params.since, events: events.slice(params.since, (values.progress as typeof PROGRESS).events) };
      if (method === "history") {
        const numbers = [new Float32Array([0, 1, 0, 4]), new Int32Array([7, 8, 9, 5])].map((those) => new DataView(those.buffer));
        const history = { tokens: [{ text: "a" }, { text: " b" }], feature: params.feature ?? 5, steps: params.steps };
        queueMicrotask(() => emit("msg:custom", { kind: "answer", id, result: history }, numbers));
        return;
      }
      if (method === "examples") {
        const part = top(params.feature, params.steps);
        queueMicrotask(() => {
          emit("msg:custom", { kind: "part", id, seq: 0, result: { ...top(params.feature, []).result, read: 0.25 } }, top(0, []).buffers);
          emit("msg:custom", { kind: "answer", id, result: part.result }, part.buffers);
        });
        return;
      }
      const { result, buffers } = method === "rows" ? piece(params.since, there, 1) : { result: method === "events" ? changes : {}, buffers: [] };
      const wrong = method === "change" && typeof params.value === "string" && `lr must be a number, got '${params.value}'.`;
      queueMicrotask(() => emit("msg:custom", wrong ? { kind: "error", id, message: wrong } : { kind: "answer", id, result }, buffers));
    },
  };
  const listeners = () => [...heard.values()].reduce((sum, those) => sum + those.size, 0);
  return { model, asked, listeners };
}

export function mount(model: Model) {
  const el = document.createElement("div");
  document.body.append(el);
  const widget = monitor();
  const close = widget.initialize({ model });
  const unmount = widget.render({ model, el });
  return { el, take_down: () => (unmount(), close()) };
}

export const points = (el: Element, figure: number) => (el.querySelectorAll(".sw-line")[figure]!.getAttribute("d") ?? "").split("L").filter(Boolean).length;
export const button = (el: Element, text: string) => [...el.querySelectorAll("button")].find((one) => one.textContent!.includes(text));
