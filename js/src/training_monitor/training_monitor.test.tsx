import { afterEach, expect, test, vi } from "vitest";
import { extent, measuredAt, nearestRow, place } from "../shared/curve";
import { ABOUT, button, handMade, mount, piece, points, PROGRESS } from "./hand_made";
import { typed } from "./Knobs";
import { append, appendMarks, NO_MARKS, NO_ROWS } from "./rows";
import { epochOf, pictureOf } from "./said";

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
