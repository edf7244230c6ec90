import { afterEach, expect, test, vi } from "vitest";
import { ABOUT, button, handMade, mount, top } from "./hand_made";
import { codeOf } from "./LookBack";
import { bornOf, browserCode, readTop, sideOf } from "./TopExamples";

afterEach(() => document.body.replaceChildren());

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
