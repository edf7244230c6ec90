import { afterEach, expect, test, vi } from "vitest";
import { extent, measuredAt, nearestRow } from "../shared/curve";
import type { Model } from "../shared/transport";
import monitor from "./index";
import { append, NO_ROWS } from "./rows";

const COLUMNS = ["step", "tokens", "epoch", "seconds", "loss", "explained_variance", "l0", "ce_loss_recovered", "dead_fraction", "vectors_per_second"];

function row(i: number): number[] {
  return [10 * (i + 1), 1000 * (i + 1), 0.1 * i, i, 1 / (i + 1), 0.1 * i, 32, i % 3 === 2 ? 0.9 : Number.NaN, 0.02, 5000];
}

function piece(since: number, to: number, shift = 0): { result: unknown; buffers: DataView[] } {
  const numbers = Float32Array.from(Array.from({ length: to - since }, (_, i) => row(since + i)).flat());
  const bytes = new Uint8Array(shift + numbers.byteLength); // a host's buffers begin anywhere
  bytes.set(new Uint8Array(numbers.buffer), shift);
  return { result: { since, columns: COLUMNS, dead_window: 50_000 }, buffers: [new DataView(bytes.buffer, shift)] };
}

const PROGRESS = {
  state: "running", step: 20, n_steps: 100, tokens: 2000, n_tokens: 10_000, epoch: 2.3, n_epochs: 4.06,
  vectors_per_second: 38_123, seconds_left: 15, error: null, rows: 2, skipped_steps: 0,
};
const ABOUT = { architecture: "topk", k: 32, d_in: 288, d_sae: 2048, hook_name: "blocks.2.hook_resid_post", model_name: null };

/** A model of the host's kind: it keeps who listens, and answers what is asked as a kernel with `there` rows would. */
function handMade(progress: object = {}, state: object = {}) {
  const values: Record<string, unknown> = { progress: { ...PROGRESS, ...progress }, _about: ABOUT, _live: true, ...state };
  const heard = new Map<string, Set<(...given: unknown[]) => void>>();
  const asked: { method: string; params: Record<string, number> }[] = [];
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
      const { id, method, params } = content as { id: number; method: string; params: Record<string, number> };
      asked.push({ method, params });
      const there = (values.progress as typeof PROGRESS).rows;
      const { result, buffers } = method === "rows" ? piece(params.since!, there, 1) : { result: {}, buffers: [] };
      queueMicrotask(() => emit("msg:custom", { kind: "answer", id, result }, buffers));
    },
  };
  const listeners = () => [...heard.values()].reduce((sum, those) => sum + those.size, 0);
  return { model, asked, listeners };
}

function mount(model: Model) {
  const el = document.createElement("div");
  document.body.append(el);
  const widget = monitor();
  const close = widget.initialize({ model });
  const unmount = widget.render({ model, el });
  return { el, take_down: () => (unmount(), close()) };
}

const points = (el: Element, figure: number) => (el.querySelectorAll(".sw-line")[figure]!.getAttribute("d") ?? "").split("L").filter(Boolean).length;
const button = (el: Element, text: string) => [...el.querySelectorAll("button")].find((one) => one.textContent!.includes(text));

afterEach(() => document.body.replaceChildren());

test("the header says what is trained and how far it is", async () => {
  const { el } = mount(handMade().model);
  for (const text of ["topk, 2,048 features", "k 32, on blocks.2.hook_resid_post", "2k of 10k tokens", "20 %", "epoch 3 of 4.1", "38.1k", "15 s left"]) {
    expect(el.textContent).toContain(text);
  }
  expect(el.querySelector("[role=progressbar]")?.getAttribute("aria-valuenow")).toBe("20");
});

test("rows are asked for from where the last ones end, and the curves grow", async () => {
  const { model, asked } = handMade();
  const { el } = mount(model);
  await vi.waitFor(() => expect(points(el, 0)).toBe(2));
  model.set("progress", { ...PROGRESS, rows: 6 });
  await vi.waitFor(() => expect(points(el, 0)).toBe(6));
  expect(asked).toEqual([{ method: "rows", params: { since: 0 } }, { method: "rows", params: { since: 2 } }]);
  expect(points(el, 2)).toBe(2); // measured on every third row only
  expect(el.textContent).toContain("silent for 50k tokens");
  expect(el.querySelectorAll("figcaption b")[3]!.textContent).toBe("32");
});

test("one row is read in all curves, by keyboard and by pointer", async () => {
  const { el } = mount(handMade({ rows: 6 }).model);
  await vi.waitFor(() => expect(points(el, 0)).toBe(6));
  const group = el.querySelector<HTMLElement>(".sw-curves")!;
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-cross")).toHaveLength(6));
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
  await vi.waitFor(() => expect(el.querySelector(".sw-foot")!.textContent).toContain("step 10, 1k tokens"));
  expect(el.querySelectorAll("figcaption b")[0]!.textContent).toBe("1");
  expect(el.querySelectorAll("figcaption b")[2]!.textContent).toBe("\u2013"); // not measured by then
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  await vi.waitFor(() => expect(el.querySelector(".sw-cross")).toBeNull());
});

test("buttons ask by name, and follow the state", async () => {
  const { model, asked } = handMade();
  const { el } = mount(model);
  button(el, "pause")!.click();
  await vi.waitFor(() => expect(button(el, "pausing")?.disabled).toBe(true));
  const pressed = () => asked.map(({ method }) => method).filter((method) => method !== "rows");
  expect(pressed()).toEqual(["pause"]);
  model.set("progress", { ...PROGRESS, state: "paused" });
  await vi.waitFor(() => expect(button(el, "go on")?.disabled).toBe(false));
  expect(el.textContent).toContain("Paused at step 20.");
  button(el, "go on")!.click();
  button(el, "stop")!.click();
  expect(pressed()).toEqual(["pause", "resume", "stop"]);
  model.set("progress", { ...PROGRESS, state: "stopped" });
  await vi.waitFor(() => expect(button(el, "stop")).toBeUndefined());
  expect(el.textContent).toContain("Stopped at step 20 of 100.");
});

test("what is read aloud changes at each tenth, not with each row", async () => {
  const { model } = handMade();
  const { el } = mount(model);
  await vi.waitFor(() => expect(points(el, 0)).toBe(2));
  const aloud = () => [...el.querySelectorAll("[aria-live], [role=status]")].map(({ textContent }) => textContent).join("|");
  const before = aloud();
  expect(before).toContain("20 % of the tokens");
  model.set("progress", { ...PROGRESS, step: 29, tokens: 2900, rows: 6 });
  await vi.waitFor(() => expect(points(el, 0)).toBe(6));
  expect(aloud()).toBe(before);
  model.set("progress", { ...PROGRESS, step: 31, tokens: 3100, rows: 6 });
  await vi.waitFor(() => expect(aloud()).toContain("30 % of the tokens"));
  el.querySelector(".sw-curves")!.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
  await vi.waitFor(() => expect(aloud()).toContain("step 10, 1k tokens"));
});

test("? shows the keys", async () => {
  const { el } = mount(handMade().model);
  el.querySelector(".sw-curves")!.dispatchEvent(new KeyboardEvent("keydown", { key: "?", bubbles: true }));
  await vi.waitFor(() => expect(el.textContent).toContain("Left and Right read the curves row by row"));
});

test("a failed run says why, as text; skipped steps are counted", async () => {
  const { el } = mount(handMade({ state: "failed", error: "NaN <img src=x>", skipped_steps: 10 }).model);
  expect(el.querySelector("[role=alert]")?.textContent).toContain("Failed at step 20: NaN <img src=x>");
  expect(el.querySelector("img")).toBeNull();
  expect(el.textContent).toContain("10 skipped steps");
});

test("silence of a running run is said, and ends with the next news", async () => {
  vi.useFakeTimers();
  const { model } = handMade({ rows: 0 });
  const { el } = mount(model);
  await vi.advanceTimersByTimeAsync(13_000);
  expect(el.textContent).toContain("No news from the run for 12 s");
  model.set("progress", { ...PROGRESS, rows: 0, step: 21 });
  await vi.advanceTimersByTimeAsync(100);
  expect(el.textContent).not.toContain("No news");
  vi.useRealTimers();
});

test("without a kernel the buttons are off and say why", async () => {
  const { el } = mount(handMade({}, { _live: false }).model);
  expect(button(el, "pause")!.disabled).toBe(true);
  expect(el.textContent).toContain("this page has no kernel");
});

test("taking the view down leaves nothing behind", async () => {
  const { model, listeners } = handMade();
  const { el, take_down } = mount(model);
  await vi.waitFor(() => expect(points(el, 0)).toBe(2));
  expect(listeners()).toBeGreaterThan(0);
  take_down();
  expect(el.childElementCount).toBe(0);
  await vi.waitFor(() => expect(listeners()).toBe(0)); // effects are taken down after the next frame
});

test("a piece that does not begin at the end changes nothing", () => {
  const two = append(NO_ROWS, piece(0, 2) as never);
  expect(append(two, piece(0, 2) as never)).toBe(two);
  expect(append(two, piece(3, 4) as never)).toBe(two);
  expect(append(two, piece(2, 2) as never)).toBe(two);
  expect([...append(two, piece(2, 4) as never).columns.step!]).toEqual([10, 20, 30, 40]);
});

test("the axis holds what was measured, is cut where asked, and is never flat", () => {
  const y = Float32Array.of(Number.NaN, -3, 0.5, 0.75);
  expect(extent(y, [], undefined, false)).toEqual([-3, 0.75]);
  expect(extent(y, [], [0, 1], false)).toEqual([0, 0.75]);
  expect(extent(y, [], undefined, true)).toEqual([0.5, 0.75]);
  expect(extent(Float32Array.of(0), [0], undefined, false)).toEqual([-1, 1]);
  expect(extent(Float32Array.of(), [], undefined, false)).toEqual([0, 1]);
  const [low, high] = extent(Float32Array.of(-5, -4), [], [0, 1], false);
  expect(low).toBeLessThan(high);
});

test("the row under the pointer is the nearest, and reads the last measure before it", () => {
  const x = Float32Array.of(10, 20, 40);
  expect([0, 14, 16, 29, 31, 99].map((at) => nearestRow(x, at))).toEqual([0, 0, 1, 1, 2, 2]);
  expect(nearestRow(Float32Array.of(), 1)).toBeNull();
  expect(nearestRow(Float32Array.of(5), 9)).toBe(0);
  expect(measuredAt(Float32Array.of(Number.NaN, 1, Number.NaN), 2)).toBe(1);
  expect(measuredAt(Float32Array.of(Number.NaN), 0)).toBe(-1);
});
