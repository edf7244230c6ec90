import { afterEach, expect, test, vi } from "vitest";
import { type Recorded, recordedModel } from "../export_host/recorded";
import { inkOn } from "../shared/colour";
import { saeAt } from "../training_monitor/LookBack";
import sweep from "./index";
import { appendAll, frontier, spread, valueAt } from "./runs";

const COLUMNS = ["step", "tokens", "l0", "explained_variance", "ce_loss_recovered", "dead_fraction", "loss"];
const NAN = Number.NaN;
/** Rows of three SAEs; the last has failed after one. */
const ROWS = [
  [[10, 100, 4, 0.2, NAN, 0.1, 1], [20, 200, 4, 0.5, 0.8, 0.1, 0.5]],
  [[10, 100, 8, 0.3, NAN, 0, 0.9], [20, 200, 8, 0.7, 0.9, 0, 0.4]],
  [[10, 100, 9, 0.1, NAN, 0, 2]],
];
const ABOUT = {
  options: ["k"], d_in: 32, hook_name: "blocks.0.hook_resid_post", model_name: null, measures_ce_loss: true, reads: false, n_sampled: null as number | null,
  saes: [["0: k=4", "4", "#1f77b4"], ["1: k=8", "8", "#ff7f0e"], ["2", null, "#2ca02c"]].map(([label, k, colour]) => ({ label, options: [k], colour, dash: "solid", d_sae: 16, two_sided: false })),
};
const PROGRESS = {
  state: "running", step: 20, n_steps: 40, tokens: 200, n_tokens: 400, epoch: null, n_epochs: null, vectors_per_second: 10,
  seconds_left: 20, error: null, rows: [2, 2, 1], events: 0, errors: { 2: "The loss is <b>NaN</b>." },
};

function piece(since: number[]) {
  const parts = ROWS.map((rows, sae) => rows.slice(since[sae]));
  const buffer = Float32Array.from(parts.flat(2)).buffer;
  return { result: { since, columns: COLUMNS, counts: parts.map((rows) => rows.length), dead_window: 5000 }, buffers: [new DataView(buffer)] };
}

function base64(buffer: ArrayBufferLike): string {
  return btoa(String.fromCharCode(...new Uint8Array(buffer)));
}

function mount(state: object = {}, events: object[] = [], more: Recorded[] = []) {
  const { result, buffers } = piece([0, 0, 0]);
  const recorded = [{ method: "rows", params: { since: [0, 0, 0] }, result, buffers: [base64(buffers[0]!.buffer)] }, { method: "events", params: { since: 0 }, result: { since: 0, events }, buffers: [] }, ...more];
  const model = recordedModel({ progress: PROGRESS, _about: ABOUT, _live: true, sae: null, _snapshots: [], snapshot_step: null, prompt: "a b", feature: null, ...state }, recorded);
  const el = document.createElement("div");
  document.body.append(el);
  const view = sweep();
  view.initialize({ model });
  view.render({ model, el });
  return { el, model };
}

const cells = (el: Element, row: number) => [...el.querySelectorAll(`tbody tr:nth-child(${row + 1}) td`)].map(({ textContent }) => textContent);

afterEach(() => document.body.replaceChildren());

test("each SAE has its line, its number, its point and its row, in one colour", async () => {
  const { el } = mount();
  await vi.waitFor(() => expect(cells(el, 1)).toEqual(["8", "8", "0.700", "0.900", "0 %", "0.400"]));
  const [explained] = [...el.querySelectorAll("figure")].slice(1);
  const strokes = [...explained!.querySelectorAll<SVGPathElement>(".sw-line")].map(({ style }) => style.stroke);
  expect(strokes).toEqual(["#1f77b4", "#ff7f0e", "#2ca02c"]);
  expect([...explained!.querySelectorAll(".sw-line-ends span")].map(({ textContent }) => textContent)).toEqual(["0", "1", "2"]);
  expect([...el.querySelectorAll(".sw-point")].map((point) => point.getAttribute("aria-label"))[1]).toBe("1: k=8: L0 8, explained variance 0.7");
  expect(el.querySelector(".sw-curves")!.getAttribute("aria-label")).toContain("On the frontier, by rising L0: 0: k=4: L0 4, explained variance 0.5, 10 % dead; 1: k=8");
});

test("an SAE that failed says why in its row, as text", async () => {
  const { el } = mount();
  await vi.waitFor(() => expect(cells(el, 2)).toEqual(["\u2013", "The loss is <b>NaN</b>."]));
  expect(el.querySelector("tbody b")).toBeNull();
});

test("a click draws one strong, and setting the trait does too", async () => {
  const { el, model } = mount();
  el.querySelectorAll<HTMLElement>("tbody button")[1]!.click();
  expect(model.get("sae")).toBe(1);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-line.sw-strong")).toHaveLength(3)); // once in each of three pictures
  model.set("sae", 0);
  await vi.waitFor(() => expect(el.querySelector("tbody button")!.getAttribute("aria-pressed")).toBe("true"));
  el.querySelectorAll<HTMLElement>("tbody button")[0]!.click();
  expect(model.get("sae")).toBeNull();
});

test("a step is read for all SAEs by keyboard", async () => {
  const { el } = mount();
  await vi.waitFor(() => expect(cells(el, 0)).toContain("0.500"));
  const press = (key: string) => el.querySelector(".sw-curves")!.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  press("Home");
  await vi.waitFor(() => expect(el.querySelector(".sw-foot")!.textContent).toContain("Everything as it was at step 10."));
  expect(cells(el, 0)).toEqual(["4", "4", "0.200", "\u2013", "10 %", "1.00"]); // CE loss was not measured by then
  press("Escape");
  await vi.waitFor(() => expect(cells(el, 0)).toContain("0.500"));
});

test("each change is a line with its label on every curve, and is said", async () => {
  const events = [{ step: 15, label: "0: k 4 \u2192 6" }, { step: 15, label: "lr 0.001 \u2192 0.0005" }];
  const { el } = mount({ progress: { ...PROGRESS, events: 2 } }, events);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-moment")).toHaveLength(6)); // two on each of three
  expect(el.querySelector<SVGLineElement>(".sw-moment")!.getAttribute("x1")).toBe("120"); // half of the way from 10 to 20
  expect([...el.querySelectorAll(".sw-moment-label")].map(({ textContent }) => textContent).slice(0, 2)).toEqual(events.map(({ label }) => label));
  const group = el.querySelector(".sw-curves")!;
  expect(group.getAttribute("aria-label")).toContain("Changed while they ran: 0: k 4 \u2192 6 at step 15, lr 0.001");
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
  await vi.waitFor(() => expect(el.querySelector(".sw-foot")!.textContent).toContain("at step 20. Changed before it: 0: k 4"));
  group.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
  await vi.waitFor(() => expect(el.querySelector(".sw-foot")!.textContent).toContain("at step 10.? keys"));
});

test("the chosen SAE is looked back at, with its number in each question, and another one begins anew", async () => {
  const history = (sae: number, feature: number | null, first: number): Recorded => ({
    method: "history",
    params: { sae, prompt: "a b", feature, steps: [10, 20] },
    result: { tokens: [{ text: "a" }, { text: " b" }], feature: feature ?? 7, steps: [10, 20], sae },
    buffers: [base64(Float32Array.from([0, first, 1, 2]).buffer), base64(Int32Array.from([7, 3, 3, 7]).buffer)],
  });
  const { el, model } = mount({ _about: { ...ABOUT, reads: true }, _snapshots: [10, 20], sae: 0, snapshot_step: 10 }, [], [history(0, null, 0.5), history(1, null, 0.25), history(0, 3, 4)]);
  await vi.waitFor(() => expect(el.querySelector(".sw-read-said")?.textContent).toContain("at step 10"));
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-health > span")).toHaveLength(5));
  expect(el.querySelector(".sw-health")!.textContent).toContain("1 is a perfect reconstruction. 0.200");
  expect(el.querySelectorAll(".sw-token")[1]!.getAttribute("aria-label")).toContain("activation 0.5");
  expect(cells(el, 0)).toContain("0.200"); // the table reads that step too
  expect(el.querySelector(".sw-foot")!.textContent).toContain("Everything as it was at step 10.");
  el.querySelectorAll<HTMLElement>(".sw-token")[1]!.click();
  expect(model.get("feature")).toBe(3);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-token")[1]!.getAttribute("aria-label")).toContain("activation 4"));
  el.querySelectorAll<HTMLElement>("tbody button")[1]!.click();
  expect([model.get("sae"), model.get("feature")]).toEqual([1, null]);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-token")[1]!.getAttribute("aria-label")).toContain("activation 0.25"));
  el.querySelectorAll<HTMLElement>("tbody button")[1]!.click();
  await vi.waitFor(() => expect(el.querySelector(".sw-back")).toBeNull()); // none is chosen: there is nothing to look back at
  await vi.waitFor(() => expect(cells(el, 0)).toContain("0.500"));
  expect(saeAt(20, true, 1)).toBe("sw.split_signs(run.sae_at(1, 20))");
});

test("a page that carries one SAE's look back says so at another, and shows nothing of the first there", async () => {
  const carried: Recorded = {
    method: "history", params: { sae: 0, prompt: "a b", feature: null, steps: [10, 20] },
    result: { tokens: [{ text: "a" }], feature: 7, steps: [10, 20], sae: 0 }, buffers: [base64(Float32Array.from([0, 1]).buffer), base64(Int32Array.from([7, 3]).buffer)],
  };
  const { el } = mount({ _about: { ...ABOUT, reads: true }, _live: false, _snapshots: [10, 20], sae: 0 }, [], [carried]);
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-token")).toHaveLength(1));
  el.querySelectorAll<HTMLElement>("tbody button")[1]!.click();
  await vi.waitFor(() => expect(el.textContent).toContain("this page carries no look back at SAE 1"));
  expect([el.querySelector(".sw-token"), el.querySelector(".sw-back"), el.querySelector("[role=alert]")]).toEqual([null, null, null]);
});

test("a measure that none takes is no column", async () => {
  const { el } = mount({ _about: { ...ABOUT, measures_ce_loss: false } });
  await vi.waitFor(() => expect(cells(el, 1)).toEqual(["8", "8", "0.700", "0 %", "0.400"]));
  expect(el.textContent).not.toContain("CE loss");
  expect(cells(el, 2)).toEqual(["\u2013", "The loss is <b>NaN</b>."]);
});

test("without a kernel the buttons are off", () => {
  const { el } = mount({ _live: false });
  expect([...el.querySelectorAll<HTMLButtonElement>(".sw-buttons button")].every(({ disabled }) => disabled)).toBe(true);
  expect(el.textContent).toContain("off: this page has no kernel");
});

test("pieces are appended to each SAE, and one that does not fit changes nothing", () => {
  const one = appendAll([], piece([0, 0, 0]) as never);
  expect(one.map(({ n }) => n)).toEqual([2, 2, 1]);
  expect(appendAll(one, piece([0, 1, 1]) as never)).toEqual(one);
  expect(valueAt(one[0]!, "ce_loss_recovered", 10)).toBeNaN();
  expect(valueAt(one[0]!, "ce_loss_recovered", null)).toBeCloseTo(0.8);
});

test("the frontier holds what no other beats in both", () => {
  expect(frontier([4, 8, 8, 16, NAN], [0.5, 0.7, 0.8, 0.75, 0.9])).toEqual([0, 2]);
});

test("numbers at the lines' ends keep apart and inside", () => {
  expect(spread([50, 50, 50], 11, 120)).toEqual([50, 61, 72]);
  expect(spread([118, 119, 120], 11, 120)).toEqual([98, 109, 120]);
  expect(spread([5, 5], 11, 4)).toEqual([0, 4]);
});

test("ink is the one that reads better", () => {
  expect([inkOn("#bcbd22"), inkOn("#1f3f80")]).toEqual(["rgb(0, 0, 0)", "rgb(255, 255, 255)"]);
});
