import { afterEach, expect, test, vi } from "vitest";
import { extent, measuredAt, nearestRow, place } from "../shared/curve";
import type { Model } from "../shared/transport";
import monitor from "./index";
import { typed } from "./Knobs";
import { codeOf } from "./LookBack";
import { append, appendMarks, NO_MARKS, NO_ROWS } from "./rows";
import { epochOf, pictureOf } from "./said";
import { bornOf, browserCode, readTop, sideOf } from "./TopExamples";

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
  events: 0, knobs: { lr: 0.001, sparsity: null, k: 32, revive: true } as Record<string, unknown>,
};
const ABOUT = { architecture: "topk", d_in: 288, d_sae: 2048, d_looked: 2048, two_sided: false, hook_name: "blocks.2.hook_resid_post", model_name: null, measures_ce_loss: true, reads: false, n_sampled: null };

/** A feature that is silent at the first snapshot, and then has one example more at each, twice as strong: 2, 4, ... */
function top(feature: number, steps: number[]): { result: any; buffers: DataView[] } {
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
function handMade(progress: object = {}, state: object = {}, events: object[] = []) {
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

test("a round that is not whole is not counted as one", () => {
  const said = (epoch: number, n_epochs: number) => epochOf({ ...PROGRESS, epoch, n_epochs } as never);
  expect([said(0, 4.06), said(3.99, 4.06), said(4.03, 4.06)]).toEqual(["epoch 1 of 4.1", "epoch 4 of 4.1", "epoch 4 of 4.1"]);
  expect([said(0.9, 1.5), said(1.2, 1.5), said(2, 2), said(0.1, 0.6)]).toEqual(["epoch 1 of 1.5", "epoch 1.2 of 1.5", "epoch 2 of 2", "0.6 of an epoch"]);
});

test("a measure that the run never takes is neither drawn nor said", async () => {
  const bare = mount(handMade({ rows: 6 }, { _about: { ...ABOUT, measures_ce_loss: false }, _snapshots: [20], snapshot_step: 20 }).model).el;
  await vi.waitFor(() => expect(bare.querySelectorAll(".sw-health > span")).toHaveLength(4));
  expect(bare.querySelectorAll("figure")).toHaveLength(5);
  expect(bare.textContent).not.toContain("CE loss");
  expect(bare.querySelector(".sw-curves")!.getAttribute("aria-label")).not.toContain("CE loss");
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

const field = (el: Element, label: string) => [...el.querySelectorAll("label")].find((one) => one.textContent!.includes(label))?.querySelector("input");
const type = (input: HTMLInputElement, value: string, key = "Enter") => {
  input.value = value;
  input.dispatchEvent(new InputEvent("input", { bubbles: true }));
  return new Promise((done) => setTimeout(done)).then(() => input.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true })));
};

test("a setting is applied by Enter, follows the run, and a wrong one stays with its sentence", async () => {
  const { model, asked } = handMade();
  const { el } = mount(model);
  const k = field(el, "k")!;
  const lr = field(el, "learning rate")!;
  expect([k.value, lr.value, field(el, "sparsity")]).toEqual(["32", "0.001", undefined]); // topk has no penalty
  await type(k, "16");
  const changes = () => asked.filter(({ method }) => method === "change").map(({ params }) => params);
  await vi.waitFor(() => expect(changes()).toEqual([{ name: "k", value: 16 }]));
  model.set("progress", { ...PROGRESS, knobs: { lr: 0.001, sparsity: null, k: 16, revive: false } });
  await vi.waitFor(() => expect(el.textContent).toContain("k 16, on blocks.2"));
  expect(k.value).toBe("16");
  await type(lr, "fast");
  await vi.waitFor(() => expect(el.querySelector(".sw-knobs [role=alert]")?.textContent).toBe("lr must be a number, got 'fast'."));
  expect([lr.value, lr.getAttribute("aria-invalid")]).toEqual(["fast", "true"]);
  model.set("progress", { ...PROGRESS, step: 30, rows: 3 }); // news of the run does not take away what is being typed
  await vi.waitFor(() => expect(points(el, 0)).toBe(3));
  expect(lr.value).toBe("fast");
  lr.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  await vi.waitFor(() => expect(lr.value).toBe("0.001"));
  expect(el.querySelector(".sw-knobs [role=alert]")).toBeNull();
});

test("reviving is checked when the run says so", async () => {
  const { model, asked } = handMade();
  const { el } = mount(model);
  const box = field(el, "revive")!;
  box.click();
  await vi.waitFor(() => expect(asked.at(-1)).toEqual({ method: "change", params: { name: "revive", value: false } }));
  expect(box.checked).toBe(true);
  model.set("progress", { ...PROGRESS, knobs: { ...PROGRESS.knobs, revive: false } });
  await vi.waitFor(() => expect(box.checked).toBe(false));
});

test("settings are off with a reason when the run is over, and without a kernel", () => {
  const over = mount(handMade({ state: "finished" }).model).el;
  expect([field(over, "k")!.disabled, field(over, "revive")!.disabled]).toEqual([true, true]);
  expect(over.querySelector(".sw-knobs")!.textContent).toContain("off: the run is over");
  const page = mount(handMade({}, { _live: false }).model).el;
  expect(field(page, "k")!.disabled).toBe(true);
  expect(page.querySelector(".sw-knobs")!.textContent).toContain("off: this page has no kernel");
});

test("a number is sent as one, anything else as it was typed", () => {
  expect([" 3e-4 ", "16", ".5", "-1"].map(typed)).toEqual([3e-4, 16, 0.5, -1]);
  expect(["", "0x10", "1,5", "1e999", "Infinity", "k"].map(typed)).toEqual(["", "0x10", "1,5", "1e999", "Infinity", "k"]);
});

test("each change is a line with its label on every curve, and is said", async () => {
  const events = [{ step: 15, label: "k 32 \u2192 16" }, { step: 15, label: "lr 0.001 \u2192 0.0005" }];
  const { model } = handMade({ rows: 4, events: 1 }, {}, events);
  const { el } = mount(model);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-moment")).toHaveLength(6));
  expect(el.querySelectorAll<SVGLineElement>(".sw-moment")[3]!.getAttribute("x1")).toBe("40"); // a sixth of the way from 10 to 40
  expect([...el.querySelectorAll(".sw-moment-label")].map((label) => label.textContent)).toEqual(Array(6).fill("k 32 \u2192 16"));
  const group = el.querySelector<HTMLElement>(".sw-curves")!;
  expect(group.getAttribute("aria-label")).toContain("Changed while it ran: k 32 \u2192 16 at step 15.");
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
  await vi.waitFor(() => expect(el.querySelector(".sw-foot")!.textContent).toContain("step 10, 1k"));
  expect(el.querySelector(".sw-foot")!.textContent).not.toContain("changed");
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  await vi.waitFor(() => expect(el.querySelector(".sw-foot")!.textContent).toContain("changed before it: k 32 \u2192 16 at step 15"));
  model.set("progress", { ...PROGRESS, rows: 4, events: 2 });
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-moment-label")).toHaveLength(12));
  expect([...el.querySelectorAll<HTMLElement>(".sw-moment-label")].slice(0, 2).map(({ style }) => style.top)).toEqual(["0px", "12px"]);
});

test("events are appended in order, and many are counted", () => {
  const one = appendMarks(NO_MARKS, { result: { since: 0, events: [{ step: 1, label: "a" }] }, buffers: [] });
  expect(appendMarks(one, { result: { since: 0, events: [{ step: 1, label: "a" }] }, buffers: [] })).toBe(one);
  const many = Array.from({ length: 12 }, (_, i) => ({ step: i, label: "lr" }));
  expect(pictureOf(NO_ROWS, many, true)).toContain("2 changes, then lr at step 2,");
});

test("labels that would run into each other go a line down, and none is written where no room is left", () => {
  const label = "k 32 \u2192 16";
  const lines = (...shares: number[]) => place(shares.map((share) => ({ share, label }))).map(({ line }) => line);
  expect(lines(0.1, 0.9)).toEqual([0, 0]);
  expect(lines(0.1, 0.15, 0.2)).toEqual([0, 1, 2]);
  expect(lines(0.45, 0.55)).toEqual([0, 1]); // one to the right, one to the left: they would cross
  expect(lines(...Array<number>(7).fill(0.3))).toEqual([0, 1, 2, 3, 4, null, null]);
});

test("looking back reads the nearest row in all curves, and the prompt at that snapshot on one scale", async () => {
  const { model, asked } = handMade({ rows: 6 }, { _snapshots: [20, 50], _about: { ...ABOUT, reads: true } });
  const { el } = mount(model);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-token")).toHaveLength(2));
  expect(asked.filter(({ method }) => method === "history")).toEqual([{ method: "history", params: { prompt: "a b", feature: null, steps: [20, 50] } }]);
  expect(el.textContent).toContain("at step 50, the strongest on this prompt at the last snapshot");
  const labels = () => [...el.querySelectorAll(".sw-token")].map((token) => token.getAttribute("aria-label"));
  expect(labels()[1]).toContain("activation 4");
  const slider = el.querySelector<HTMLInputElement>(".sw-back input")!;
  expect([slider.max, slider.value, slider.getAttribute("aria-valuetext")]).toEqual(["2", "2", "now"]);
  slider.value = "0";
  slider.dispatchEvent(new InputEvent("input", { bubbles: true }));
  await vi.waitFor(() => expect(labels()[1]).toContain("activation 1"));
  expect(model.get("snapshot_step")).toBe(20);
  expect(slider.getAttribute("aria-valuetext")).toBe("step 20");
  expect(el.querySelectorAll("figcaption b")[1]!.textContent).toBe("0.100"); // explained variance of the row of step 20
  expect(el.querySelector(".sw-foot")!.textContent).toContain("step 20, 2k tokens");
  expect(el.querySelector(".sw-scale")!.textContent).toContain("4"); // the same at every snapshot
  el.querySelectorAll<HTMLElement>(".sw-token")[1]!.click();
  expect(model.get("feature")).toBe(8); // the strongest there at step 20
  model.set("snapshot_step", null); // from Python
  await vi.waitFor(() => expect(slider.value).toBe("2"));
});

test("what is looked at can be had as code, without a model too", async () => {
  const { el } = mount(handMade({ rows: 6 }, { _snapshots: [20], snapshot_step: 20, feature: 3 }).model);
  expect(el.querySelector(".sw-read")).toBeNull();
  expect(button(el, "copy as code")).toBeDefined();
  expect(codeOf("run.sae_at(20)", "a \"b\"", 3)).toBe('sw.TokenHeatmap(run.sae_at(20), model, prompt="a \\"b\\"", feature=3)');
  expect(mount(handMade({ rows: 6 }).model).el.querySelector(".sw-back")).toBeNull(); // no snapshot, no slider
});

const LOOKED_BACK = { _snapshots: [20, 40, 60], _about: { ...ABOUT, reads: true, n_sampled: 20_000 } };
const slide = (el: Element, to: number) => {
  const slider = el.querySelector<HTMLInputElement>(".sw-back input")!;
  slider.value = String(to);
  slider.dispatchEvent(new InputEvent("input", { bubbles: true }));
};
const examplesAsked = (asked: { method: string; params: unknown }[]) => asked.filter(({ method }) => method === "examples").map(({ params }) => params);

test("a feature's strongest examples are asked for once, when someone looks back, and are seen being born", async () => {
  const { model, asked } = handMade({ rows: 6 }, LOOKED_BACK);
  const { el } = mount(model);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-read .sw-token")).toHaveLength(2));
  expect(examplesAsked(asked)).toEqual([]);
  expect(el.querySelector(".sw-top")!.textContent).toContain("Move the slider, or choose a feature");
  slide(el, 2);
  const lines = () => el.querySelectorAll(".sw-fd-example");
  await vi.waitFor(() => expect(lines()).toHaveLength(2));
  expect(examplesAsked(asked)).toEqual([{ feature: 5, steps: [20, 40, 60] }]); // the strongest on the prompt
  const said = () => el.querySelector(".sw-said-top")!.textContent;
  expect(said()).toContain("#5 at step 60: peak");
  expect(said()).toContain("Silent until step 20, active at step 40, peak 2; strongest at step 60, peak 4.");
  expect(lines()[0]!.textContent).toContain("4");
  slide(el, 1);
  await vi.waitFor(() => expect(lines()).toHaveLength(1));
  expect(el.querySelector(".sw-births .sw-seen")!.getAttribute("height")).toBe("11"); // half as strong as at its strongest
  expect(el.querySelector(".sw-top .sw-scale")!.textContent).toContain("4max at all snapshots"); // one scale
  slide(el, 0);
  await vi.waitFor(() => expect(said()).toContain("#5 at step 20: silent on all 20,000 tokens"));
  expect(examplesAsked(asked)).toHaveLength(1); // moving the slider asks nothing
});

test("the numbers of the step stand beside it, with their names", async () => {
  const { el } = mount(handMade({ rows: 6 }, { ...LOOKED_BACK, snapshot_step: 40 }).model);
  const health = () => [...el.querySelectorAll(".sw-health > span")].map((each) => each.textContent);
  await vi.waitFor(() => expect(health()).toHaveLength(5));
  const found = health().join("|");
  for (const text of ["loss", "explained variance", "CE loss recovered", "L0", "dead features", "silent for 50k tokens"]) expect(found).toContain(text);
  expect(found).toMatch(/explained variance.* 0\.300/);
  expect(found).toContain(" of step 30"); // CE loss recovered was measured there
  expect(el.querySelector(".sw-health")!.getAttribute("aria-label")).toBe("The run at step 40");
});

test("j, k and the number walk the features, and the step stays", async () => {
  const { model, asked } = handMade({ rows: 6 }, { ...LOOKED_BACK, snapshot_step: 60, feature: 0 });
  const { el } = mount(model);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-fd-example")).toHaveLength(2));
  const press = (key: string) => el.querySelector(".sw-back input")!.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  press("k");
  expect(model.get("feature")).toBe(2047);
  await vi.waitFor(() => expect(el.querySelector(".sw-said-top")!.textContent).toContain("#2047"));
  press("j");
  expect([model.get("feature"), model.get("snapshot_step")]).toEqual([0, 60]);
  await vi.waitFor(() => expect(el.querySelector(".sw-said-top")!.textContent).toContain("#0"));
  const field = el.querySelector<HTMLInputElement>(".sw-fd-number")!;
  field.value = "99999";
  field.form!.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
  await vi.waitFor(() => expect(el.querySelector(".sw-top [role=alert]")!.textContent).toContain("There is no feature #99999"));
  field.value = "#7";
  field.form!.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
  await vi.waitFor(() => expect(examplesAsked(asked).at(-1)).toEqual({ feature: 7, steps: [20, 40, 60] }));
});

test("without text there are no examples; without a kernel what was not recorded says so", async () => {
  const bare = mount(handMade({ rows: 6 }, { _snapshots: [20], snapshot_step: 20 }).model).el;
  await vi.waitFor(() => expect(bare.querySelectorAll(".sw-health > span")).toHaveLength(5));
  expect(bare.querySelector(".sw-top")).toBeNull();
  const { model } = handMade({ rows: 6 }, { ...LOOKED_BACK, _live: false, snapshot_step: 60, feature: 3 });
  const { el } = mount(model);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-fd-example")).toHaveLength(2));
  expect(el.querySelector<HTMLInputElement>(".sw-fd-number")!.disabled).toBe(true); // another feature was not recorded
  expect(el.querySelector(".sw-top")!.textContent).toContain("off: this page has no kernel");
  const page = withoutExamples({ snapshot_step: 60, feature: 3 });
  await vi.waitFor(() => expect(page.textContent).toContain("this page carries no strongest examples"));
});

/** A page on which everything was recorded but the examples. */
const withoutExamples = (values: object) => {
  const { model } = handMade({ rows: 6 }, { ...LOOKED_BACK, _live: false, ...values });
  const heard: ((...given: unknown[]) => void)[] = [];
  const { on, send } = model;
  model.on = (event, callback) => (event === "msg:custom" && heard.push(callback as never), on.call(model, event, callback));
  model.send = (content) => {
    const { method, id } = content as { method: string; id: number };
    if (method === "examples") heard.forEach((callback) => callback({ kind: "error", id, message: "not recorded" }, []));
    else send.call(model, content);
  };
  return mount(model).el;
};

test("a page that carries no examples says so before the slider is moved, and promises nothing", async () => {
  const el = withoutExamples({});
  expect(el.textContent).not.toContain("Move the slider");
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-read .sw-token")).toHaveLength(2));
  await vi.waitFor(() => expect(el.textContent).toContain("Off: this page carries no strongest examples"));
  expect(el.textContent).not.toContain("Move the slider");
  expect(el.querySelector(".sw-top")).toBeNull();
  slide(el, 1); // nor then
  await vi.waitFor(() => expect(el.textContent).toContain("Off: this page carries no strongest examples"));
  const { el: carries } = mount(handMade({ rows: 6 }, { ...LOOKED_BACK, _live: false }).model); // shown at once
  await vi.waitFor(() => expect(carries.querySelectorAll(".sw-fd-example")).toHaveLength(2));
});

test("an SAE with signed codes is looked back at side by side, also in the code", async () => {
  const two = { ...LOOKED_BACK._about, architecture: "abstopk", two_sided: true, d_looked: 4096 };
  const { model } = handMade({ rows: 6 }, { ...LOOKED_BACK, _about: two, snapshot_step: 60, feature: 0 });
  const { el } = mount(model);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-fd-example")).toHaveLength(2));
  const build = "sw.FeatureIndex.build(sw.split_signs(run.sae_at(60)), model, texts";
  expect(el.querySelector(".sw-all")!.textContent).toContain(build);
  expect(el.querySelector(".sw-top")!.textContent).toContain("The positive side of feature #0; #2048 is the negative one.");
  el.querySelector(".sw-back input")!.dispatchEvent(new KeyboardEvent("keydown", { key: "k", bubbles: true }));
  expect(model.get("feature")).toBe(4095);
  expect(sideOf(4095, 2048)).toContain("The negative side of feature #2047");
  expect(el.textContent).toContain("abstopk, 2,048 features");
});

test("a growing answer is read part by part, and a birth is a sentence", () => {
  const { steps, examples, peaks } = readTop(top(5, [10, 20, 30]) as never);
  expect([steps, examples.map(({ length }) => length), peaks]).toEqual([[10, 20, 30], [0, 1, 2], [0, 2, 4]]);
  expect(bornOf({ steps: [10, 20], peaks: [0, 0] })).toBe("Silent at every snapshot.");
  expect(bornOf({ steps: [10, 20], peaks: [3, 0] })).toBe("Active from the first snapshot on, peak 3; silent at the last.");
  expect(browserCode("run.sae_at(20)", 20, 5)).toBe('sw.FeatureBrowser(sw.FeatureIndex.build(run.sae_at(20), model, texts, "step-20"), feature=5)');
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
