import { afterEach, expect, test, vi } from "vitest";
import { recordedModel } from "../export_host/recorded";
import heatmap from "./index";

const HOSTILE = ["<script>alert(1)</script>", "</style>", "\ud800", "\u202eabc", " ".repeat(10_000), "\n"];

function base64(numbers: Float32Array | Int32Array): string {
  return btoa(String.fromCharCode(...new Uint8Array(numbers.buffer)));
}

function reading(texts: string[], prompt = "p") {
  const n = texts.length;
  const values = Float32Array.from({ length: 2 * n }, (_, i) => (i % 2 === 0 ? i + 1 : 0));
  return {
    method: "tokens",
    params: { prompt },
    result: { tokens: texts.map((text) => ({ text })), k: 2, labels: { "7": { top_tokens: "bridge", density: 0.002, max: 9.3 } } },
    buffers: [
      base64(values),
      base64(Int32Array.from({ length: 2 * n }, (_, i) => (i % 2 === 0 ? 7 : 0))),
      base64(new Float32Array(n).fill(0.5)),
    ],
  };
}

async function mount(texts: string[], state: Record<string, unknown> = {}) {
  const model = recordedModel({ prompt: "p", feature: null, features: [], token: null, _live: true, ...state }, [reading(texts)]);
  const el = document.createElement("div");
  document.body.append(el);
  const widget = heatmap();
  const close = widget.initialize({ model });
  const unmount = widget.render({ model, el });
  await vi.waitFor(() => expect(el.querySelectorAll(".sw-token").length).toBe(texts.length));
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

test("taking the view down leaves nothing behind", async () => {
  const { el, unmount, close } = await mount(["Once"]);
  unmount();
  close();
  expect(el.childElementCount).toBe(0);
});
