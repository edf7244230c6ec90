import { afterEach, expect, test, vi } from "vitest";
import { type Recorded, recordedModel } from "../export_host/recorded";
import heatmap from "./index";

const HOSTILE = ["<script>alert(1)</script>", "</style>", "\ud800", "\u202eabc", " ".repeat(10_000), "\n"];

function base64(numbers: Float32Array | Int32Array): string {
  return btoa(String.fromCharCode(...new Uint8Array(numbers.buffer)));
}

function reading(texts: string[], prompt = "p") {
  const n = texts.length;
  const values = Float32Array.from({ length: 2 * n }, (_, i) => (i % 2 === 0 ? i : 0)); // none on the first token
  return {
    method: "tokens",
    params: { prompt },
    result: { tokens: texts.map((text) => ({ text })), k: 2, whole: true, excluded: [0], source: "topk", labels: { "7": { top_tokens: "bridge", density: 0.002, max: 9.3 } } },
    buffers: [
      base64(values),
      base64(Int32Array.from({ length: 2 * n }, (_, i) => (i % 2 === 0 ? 7 : 0))),
      base64(new Float32Array(n).fill(0.5)),
    ],
  };
}

async function mount(texts: string[], state: Record<string, unknown> = {}, answers: Recorded[] = [reading(texts)]) {
  const model = recordedModel({ prompt: "p", feature: null, features: [], token: null, _live: true, ...state }, answers);
  const el = document.createElement("div");
  document.body.append(el);
  const widget = heatmap();
  const close = widget.initialize({ model });
  const unmount = widget.render({ model, el });
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-token").length).toBeGreaterThanOrEqual(texts.length));
  return { model, el, unmount, close };
}

afterEach(() => document.body.replaceChildren());

test("a click selects the token in Python and lists its features; a feature's button colours by it", async () => {
  const { model, el } = await mount(["Once", " upon"]);
  el.querySelectorAll<HTMLElement>(".sw-token")[1]!.click();
  expect(model.get("token")).toBe(1);
  await vi.waitFor(() => expect(el.querySelector(".sw-id")?.textContent).toBe("#7"));
  el.querySelector<HTMLElement>(".sw-id")!.click();
  expect(model.get("feature")).toBe(7);
  await vi.waitFor(() => expect(el.querySelector(".sw-scale")?.textContent).toContain("9.3"));
});

test("what Python sets moves the view", async () => {
  const { model, el } = await mount(["Once", " upon"]);
  model.set("token", 0);
  await vi.waitFor(() => expect(el.querySelector(".sw-token-selected")?.textContent).toBe("Once"));
});

test("hostile tokens are text: nothing runs, nothing is lost", async () => {
  const { el } = await mount(HOSTILE);
  expect(el.querySelector("script, .sw-tokens style")).toBeNull();
  const shown = [...el.querySelectorAll(".sw-token")].map((token) => token.textContent);
  expect(shown[0]).toBe(HOSTILE[0]);
  expect(shown[2]).toBe("U+D800");
  expect(shown[3]).toBe("U+202Eabc");
  expect(shown[4]).toHaveLength(10_000);
  expect(shown[5]).toBe("\u21b5\n");
});

test("an error stands in the view as its sentence", async () => {
  const { model, el } = await mount(["Once"]);
  model.set("prompt", "another");
  await vi.waitFor(() => expect(el.querySelector("[role=alert]")?.textContent).toContain("was not recorded"));
});

test("without a kernel the prompt is off and says why", async () => {
  const { el } = await mount(["Once"], { _live: false });
  expect(el.querySelector("textarea")?.disabled).toBe(true);
  expect(el.textContent).toContain("Without a kernel");
});

test("arrows walk, Enter selects, Esc lets go", async () => {
  const { model, el } = await mount(["Once", " upon", " a"]);
  const strip = el.querySelector<HTMLElement>(".sw-tokens")!;
  const press = (key: string) => strip.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  press("ArrowRight");
  press("ArrowRight");
  press("Enter");
  expect(model.get("token")).toBe(1);
  press("Escape");
  expect(model.get("token")).toBeNull();
});

test("a token without features says why: left out of the SAE, or none is active", async () => {
  const { model, el } = await mount(["Once", " upon"], { token: 0 });
  await vi.waitFor(() => expect(el.textContent).toContain("Position 0 is left out of this SAE."));
  model.set("token", 1);
  await vi.waitFor(() => expect(el.querySelector(".sw-features")).not.toBeNull());
  const other = reading(["Once", " upon"]);
  const { el: second } = await mount(["Once", " upon"], { token: 0 }, [{ ...other, result: { ...other.result, excluded: [] } }]);
  await vi.waitFor(() => expect(second.textContent).toContain("No feature is active here."));
  expect(second.textContent).not.toContain("left out");
});

test("a chosen feature that is not among the strongest has its exact values", async () => {
  const few = reading(["Once", " upon", " a"]);
  const exact = (features: number[], values: number[]): Recorded => ({
    method: "values",
    params: { prompt: "p", features },
    result: { features, labels: {} },
    buffers: [base64(Float32Array.from(values))],
  });
  const answers = [{ ...few, result: { ...few.result, whole: false } }, exact([9, 40], [0, 0.5, 0, 0, 0, 3])];
  const { model, el } = await mount(["Once", " upon", " a"], { feature: 40, features: [9] }, answers);
  const labels = (strip: number) => [...el.querySelectorAll(".sw-tokens")[strip]!.children].map((token) => token.getAttribute("aria-label"));
  await vi.waitFor(() => expect(labels(0)[2]).toBe("\u201c a\u201d, activation 3"));
  expect(labels(1)[1]).toBe("\u201c upon\u201d, activation 0.5");
  model.set("feature", 7); // among the strongest, and not recorded exactly
  await vi.waitFor(() => expect(labels(0)[2]).toBe("\u201c a\u201d, activation 4"));
});

test("copy as code reproduces the selected token too", async () => {
  const copied = vi.spyOn(navigator.clipboard, "writeText").mockResolvedValue();
  const { el } = await mount(["Once", " upon"], { token: 1, feature: 7 });
  const copy = [...el.querySelectorAll("button")].find(({ textContent }) => textContent === "copy as code")!;
  copy.click();
  expect(copied).toHaveBeenCalledWith('sw.TokenHeatmap(sae, model, prompt="p", feature=7, token=1)');
});

test("? shows the keys", async () => {
  const { el } = await mount(["Once"]);
  el.querySelector(".sw-tokens")!.dispatchEvent(new KeyboardEvent("keydown", { key: "?", bubbles: true }));
  await vi.waitFor(() => expect(el.textContent).toContain("arrows, Home and End walk along the prompt"));
});

test("taking the view down leaves nothing behind", async () => {
  const { el, unmount, close } = await mount(["Once"]);
  unmount();
  close();
  expect(el.childElementCount).toBe(0);
});
