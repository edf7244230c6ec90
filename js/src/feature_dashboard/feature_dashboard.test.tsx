import { afterEach, expect, test, vi } from "vitest";
import { type Recorded, recordedModel } from "../export_host/recorded";
import { part, readExamples, within } from "./answers";
import dashboard from "./index";
import { examplesAnswer, featureAnswer, relatedAnswer, soon, WINDOW } from "./recording";

const TOP = [
  { texts: ["<s>", "Lily", " saw", " a", " bridge", ".", " It", " fell", "."], values: [0, 0, 0, 0, 7.9, 0, 0, 0, 0], peak: 4 },
  { texts: ["<s>", "The", " bridge", "\n", "end"], values: [0, 0, 5, 0, 1.5], peak: 2 },
];
const ANSWERS: Recorded[] = [
  featureAnswer(12),
  featureAnswer(13, { tokens: [{ text: " cat" }] }),
  featureAnswer(14, { count: 0, max: 0, density: 0, intervals: [], flags: ["dead: never active on the scanned tokens"] }),
  examplesAnswer(12, "top", TOP),
  examplesAnswer(12, "random", [TOP[1]!]),
  ...[0, 1, 2, 3, 4].map((group) => examplesAnswer(12, group, group === 0 ? [TOP[0]!] : [])),
  examplesAnswer(13, "top", []),
  relatedAnswer(12),
];

async function mount(state: Record<string, unknown> = {}, answers = ANSWERS) {
  const model = recordedModel(
    { feature: 12, range: null, group: "top", context: "snippet", _d_sae: 100, _recorded: [], _window: WINDOW, _live: true, ...state },
    answers,
  );
  const el = document.createElement("div");
  document.body.append(el);
  const widget = dashboard();
  const close = widget.initialize({ model });
  const unmount = widget.render({ model, el });
  await soon(() => expect(el.querySelector(".sw-fd-measures, [role=alert], [role=status]")).not.toBeNull());
  return { model, el, unmount, close };
}

const lines = (el: Element) => [...el.querySelectorAll(".sw-fd-example")];
const press = (el: Element, key: string) => el.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const button = (el: Element, name: string | RegExp) =>
  [...el.querySelectorAll("button")].find((each) => (typeof name === "string" ? each.textContent === name : name.test(each.textContent ?? "")))!;

afterEach(() => document.body.replaceChildren());

test("a feature is shown whole: measures, sentence, effects, examples", async () => {
  const { el } = await mount();
  await soon(() => expect(lines(el)).toHaveLength(2));
  const text = el.textContent!;
  for (const said of ["#12", "0.21 %", "200,000", "tokens scanned", "Active on 420 tokens", "\u201c over\u201d", "+2.1", "\u22120.8"]) {
    expect(text).toContain(said);
  }
  expect(lines(el).map((line) => line.querySelector("button")!.textContent)).toEqual(["7.90\u201c bridge\u201d", "5.00\u201c bridge\u201d"]);
  await soon(() => expect(el.textContent).toContain("#87"));
});

test("a group is chosen for Python to read; an interval says what it contains", async () => {
  const { model, el } = await mount();
  await soon(() => expect(lines(el)).toHaveLength(2));
  button(el, "6.4\u20138").click();
  expect(model.get("group")).toBe(0);
  await soon(() => expect(lines(el)).toHaveLength(1));
  expect(el.textContent).toContain("1 example from the interval 6.4 to 8, which contains 20 % of its activations");
});

test("brushing sets the range; the keyboard brushes too; letting go gives the group back", async () => {
  const { model, el } = await mount({ _live: false, _recorded: [12] });
  await soon(() => expect(lines(el)).toHaveLength(2));
  const histogram = el.querySelector("svg[role=slider]")!;
  press(histogram, "ArrowLeft");
  expect(model.get("range")).toEqual([6, 8]);
  await soon(() => expect(lines(el)).toHaveLength(1));
  expect(el.textContent).toContain("of those recorded with this page in the brushed range 6 to 8");
  press(histogram, "Escape");
  expect(model.get("range")).toBeNull();
  await soon(() => expect(lines(el)).toHaveLength(2));
});

test("a token pointed at stands in the histogram and says its value", async () => {
  const { el } = await mount();
  await soon(() => expect(lines(el)).toHaveLength(2));
  expect(el.querySelector(".sw-marker")).toBeNull();
  const token = lines(el)[0]!.querySelectorAll(".sw-token")[4]!;
  token.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
  await soon(() => expect(Number(el.querySelector(".sw-marker")?.getAttribute("x1"))).toBeCloseTo((7.9 / 8) * 240, 3));
  expect(el.querySelector(".sw-card")!.textContent).toContain("7.9, 98.8 % of its max");
});

test("an example opens to its whole context and folds again", async () => {
  const { el } = await mount({ context: "sentence" });
  await soon(() => expect(lines(el)).toHaveLength(2));
  expect(lines(el)[0]!.querySelectorAll(".sw-token")).toHaveLength(6); // to the end of its sentence
  const gutter = lines(el)[0]!.querySelector("button")!;
  gutter.click();
  await soon(() => expect(lines(el)[0]!.querySelectorAll(".sw-token")).toHaveLength(9));
  expect(gutter.getAttribute("aria-expanded")).toBe("true");
  gutter.click();
  await soon(() => expect(lines(el)[0]!.querySelectorAll(".sw-token")).toHaveLength(6));
});

test("j and k walk and let go of the range; typed into a field they do not", async () => {
  const { model, el } = await mount({ range: [2, 4] });
  press(el.querySelector(".sw-title")!, "j");
  expect(model.get("feature")).toBe(13);
  expect(model.get("range")).toBeNull();
  await soon(() => expect(el.textContent).toContain("#13"));
  press(el.querySelector(".sw-title")!, "k");
  expect(model.get("feature")).toBe(12);
  await soon(() => expect(el.querySelector(".sw-title")!.textContent).toBe("#12"));
  press(el.querySelector("input")!, "j");
  expect(model.get("feature")).toBe(12);
});

test("the SAE is named with its step, and ? shows the keys", async () => {
  const { el } = await mount();
  await soon(() => expect(el.textContent).toContain("topk \u00b7 blocks.2.hook_resid_post \u00b7 step 5,005"));
  press(el.querySelector(".sw-title")!, "?");
  await soon(() => expect(el.textContent).toContain("j next feature, k previous"));
});

test("keys do not reach the notebook, used here or not", async () => {
  const { el } = await mount();
  const outside = vi.fn();
  document.body.addEventListener("keydown", outside);
  press(el.querySelector(".sw-title")!, "j");
  press(el.querySelector(".sw-title")!, "x");
  document.body.removeEventListener("keydown", outside);
  expect(outside).not.toHaveBeenCalled();
});

const numberTyped = (el: Element, text: string) => {
  const field = el.querySelector<HTMLInputElement>("input[name=feature]")!;
  field.value = text;
  field.form!.requestSubmit();
  return field;
};

test.each([
  ["with a kernel", {}],
  ["in a page, on a feature that it carries", { _live: false, _recorded: [12] }],
  ["in a page, on a feature that it does not carry", { _live: false, _recorded: [13], feature: 50 }],
])("a number that does not exist is said to be none, %s, and what was shown stays", async (_where, state) => {
  const { model, el } = await mount(state);
  const shown = model.get("feature");
  for (const typed of ["100", "-1", "1.5", "bridge"]) {
    const field = numberTyped(el, typed);
    await soon(() => expect(el.querySelector(".sw-fd-refusal")?.textContent).toBe(`There is no feature #${typed}: this SAE has features 0 to 99.`));
    expect(el.querySelector(".sw-fd-refusal")!.getAttribute("role")).toBe("alert");
    expect([field.value, model.get("feature")]).toEqual([String(shown), shown]);
  }
  numberTyped(el, "");
  await soon(() => expect(el.querySelector(".sw-fd-refusal")).toBeNull());
  numberTyped(el, "-1");
  await soon(() => expect(el.querySelector(".sw-fd-refusal")).not.toBeNull());
  model.set("feature", 13); // as a click elsewhere does
  await soon(() => expect(el.querySelector(".sw-title")!.textContent).toBe("#13"));
  expect(el.querySelector(".sw-fd-refusal")).toBeNull();
  model.set("feature", shown); // and back again: it was said once
  await soon(() => expect(el.querySelector(".sw-title")!.textContent).toBe(`#${shown}`));
  expect(el.querySelector(".sw-fd-refusal")).toBeNull();
  numberTyped(el, "#12");
  expect(model.get("feature")).toBe(12);
});

test("in a page, a number that exists and is not carried is said not to be, and j and k lead on to those that are", async () => {
  const { model, el } = await mount({ _live: false, _recorded: [12, 13] });
  numberTyped(el, "50");
  await soon(() => expect(el.querySelector("[role=status]")?.textContent).toContain("2 features can be opened in this page, and #50 is not among them"));
  expect(el.querySelector(".sw-fd-refusal")).toBeNull();
  press(el.querySelector(".sw-title")!, "k");
  expect(model.get("feature")).toBe(13);
  await soon(() => expect(el.querySelector(".sw-title")!.textContent).toBe("#13"));
  press(el.querySelector(".sw-title")!, "j");
  expect(model.get("feature")).toBe(12);
});

test("a dead feature says so and shows no examples", async () => {
  const { el } = await mount({ feature: 14 });
  expect(el.textContent).toContain("dead: never active on the scanned tokens");
  expect(el.textContent).toContain("Silent on all 200,000 tokens scanned.");
  expect(lines(el)).toHaveLength(0);
});

test("without a kernel what was not recorded is off and says why", async () => {
  const { el } = await mount({ _live: false, _recorded: [12], feature: 50 });
  expect(el.querySelector("[role=status]")!.textContent).toContain("one feature can be opened in this page, and #50 is not among them");
});

test("what Python sets moves the view", async () => {
  const { model, el } = await mount();
  model.set("feature", 13);
  await soon(() => expect(el.querySelector(".sw-title")!.textContent).toBe("#13"));
  await soon(() => expect(el.textContent).toContain("\u201c cat\u201d"));
});

test("hostile tokens are text", async () => {
  const hostile = ["<script>alert(1)</script>", "</style>", "<img src=x onerror=alert(1)>", "\u202eabc", "\n"];
  const { el } = await mount({ context: "full" }, [
    featureAnswer(12, { tokens: hostile.map((text) => ({ text })), positive: [{ text: hostile[0]!, value: 1 }] }),
    examplesAnswer(12, "top", [{ texts: hostile, values: [0, 0, 3, 0, 0], peak: 2 }]),
  ]);
  await soon(() => expect(lines(el)).toHaveLength(1));
  expect(el.querySelector(".sw-root script, .sw-root img, .sw-root style")).toBeNull();
  expect([...el.querySelectorAll(".sw-token")].map((token) => token.textContent)).toEqual([...hostile.slice(0, 3), "U+202Eabc", "\u21b5\n"]);
});

test("taking the view down leaves nothing behind", async () => {
  const { model, el, unmount, close } = await mount();
  model.set("feature", 13);
  await soon(() => expect(el.querySelector(".sw-title")!.textContent).toBe("#13")); // it listens by now
  const off = vi.spyOn(model, "off");
  unmount();
  close();
  expect(el.childElementCount).toBe(0);
  const let_go = () => off.mock.calls.map(([event]) => event);
  await soon(() => expect(let_go()).toEqual(expect.arrayContaining(["change:feature", "change:range", "msg:custom"])));
});

test("sentences end where they end", () => {
  const [example] = readExamples({ ...examplesAnswer(1, "top", [TOP[0]!]), buffers: buffersOf(examplesAnswer(1, "top", [TOP[0]!])) } as never);
  expect(part(example!, "sentence")).toEqual([0, 6]);
  expect(part({ ...example!, peak: 7 }, "sentence")).toEqual([6, 9]);
  expect(part(example!, "full")).toEqual([0, 9]);
});

test("a range keeps each example once, strongest first", () => {
  const read = (written: typeof TOP) => readExamples({ ...examplesAnswer(1, "top", written), buffers: buffersOf(examplesAnswer(1, "top", written)) } as never);
  const all = [...read([TOP[1]!, TOP[0]!]), ...read([TOP[1]!, TOP[0]!])];
  expect(within(all, [0, 8]).map(({ value }) => value.toFixed(1))).toEqual(["7.9", "5.0"]);
  expect(within(all, [6, 8])).toHaveLength(1);
});

function buffersOf({ buffers }: Recorded): DataView[] {
  return buffers.map((text) => new DataView(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer));
}
