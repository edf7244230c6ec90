import { afterEach, expect, test, vi } from "vitest";
import { type Recorded, recordedModel } from "../export_host/recorded";
import { base64, examplesAnswer, featureAnswer, relatedAnswer, soon, WINDOW } from "../feature_dashboard/recording";
import browser from "./index";
import { listed, readMatches, readTable, searchHere, type TableResult } from "./rows";

const SOURCE = { index: "demo" };
const SIZE = 3000;
const DEAD = 5;
const DENSE = 6;

/** Feature i: density i / 10,000, max SIZE - i, fires on " word<i>"; 5 is dead, 6 dense, 7 fires on markup. */
function tableAnswer(): Recorded {
  const each = <Value,>(value: (feature: number) => Value) => Array.from({ length: SIZE }, (_, i) => value(i));
  const texts = each((i) => new TextEncoder().encode(i === 7 ? "<b>bold</b>" : ` word${i}`));
  const result: TableResult = { d_sae: SIZE, n_tokens: 10_000, flags: ["dead", "dense"], meanings: ["never active", "active on more than 10 %"], bars: 2 };
  return {
    method: "table",
    params: SOURCE,
    result,
    buffers: [
      Float32Array.from(each((i) => i / 10_000)),
      Int32Array.from(each((i) => (i === DEAD ? 0 : i + 1))),
      Float32Array.from(each((i) => SIZE - i)),
      Float32Array.from(each((i) => (i === DEAD ? NaN : i))),
      Float32Array.from(each(() => 0.5)),
      Uint8Array.from(each((i) => (i === DEAD ? 1 : i === DENSE ? 2 : 0))),
      Uint8Array.from(each(() => [255, 10]).flat()),
      Uint8Array.from(each(() => 1)),
      Uint16Array.from(texts.map((text) => text.length)),
      Uint8Array.from(texts.flatMap((text) => [...text])),
      Uint8Array.from(each(() => 0)),
    ].map(base64),
  };
}

/** " bridge" finds 8 before 7, "<b>bold</b>" 7, "12" 3. */
function matchesAnswer(): Recorded {
  const texts = [" bridge", "<b>bold</b>", "12"].map((text) => new TextEncoder().encode(text));
  return {
    method: "matches",
    params: SOURCE,
    result: { n: 16 },
    buffers: [
      Uint16Array.from([2, 1, 1]),
      Int32Array.from([8, 7, 7, 3]),
      Float32Array.from([0.5, 0.25, 0.75, 0.9]),
      Uint16Array.from(texts.map((text) => text.length)),
      Uint8Array.from(texts.flatMap((text) => [...text])),
      Uint8Array.from([0, 0, 0]),
    ].map(base64),
  };
}

const shownWhole = (feature: number) => [
  featureAnswer(feature, {}, SOURCE),
  examplesAnswer(feature, "top", [{ texts: [" a", " word"], values: [0, 4], peak: 1 }], SOURCE),
  relatedAnswer(feature, SOURCE),
];
const search = (query: string, features: number[], message: string | null = null): Recorded => ({
  method: "search",
  params: { ...SOURCE, query },
  result: { message },
  buffers: [base64(Int32Array.from(features))],
});
const ANSWERS = [
  tableAnswer(),
  matchesAnswer(),
  ...[0, 1, 2, 7, 2000].flatMap(shownWhole),
  search(" word7", [7, 2000, 1]),
  search("zebra", [], "no feature is active on a token that says 'zebra' in the scanned text"),
];

async function mount(state: Record<string, unknown> = {}) {
  const model = recordedModel(
    {
      index_name: "demo", _names: ["demo"], _recorded: [], _window: WINDOW, feature: 1, range: null, group: "top", context: "snippet", sort: "match",
      descending: false, query: "", hide_dead: true, hide_dense: false, _live: true, ...state,
    },
    ANSWERS,
  );
  const el = document.createElement("div");
  document.body.append(el);
  const widget = browser();
  const close = widget.initialize({ model });
  const unmount = widget.render({ model, el });
  await soon(() => expect(rows(el).length).toBeGreaterThan(0));
  return { model, el, unmount, close };
}

const rows = (el: Element) => [...el.querySelectorAll<HTMLElement>(".sw-fb-scroll .sw-fb-row")];
const ids = (el: Element) => rows(el).map((row) => row.querySelector(".sw-fb-id")!.textContent);
const head = (el: Element, name: string) => el.querySelector<HTMLElement>(`[aria-label="sort by ${name}"]`)!;
const press = (el: Element, key: string) => el.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));

afterEach(() => document.body.replaceChildren());

test("only rows in sight are drawn; the grid says how many there are", async () => {
  const { el } = await mount();
  expect(rows(el).length).toBeLessThan(60);
  expect(el.querySelector("[role=grid]")!.getAttribute("aria-rowcount")).toBe(String(SIZE)); // less one dead, and the head
  expect(el.textContent).toContain("2,999 of 3,000 features");
});

test("the numbers of a column have as many decimals", async () => {
  const { el } = await mount();
  const densities = rows(el).map((row) => row.querySelector(".sw-number")!.textContent);
  expect(densities.slice(0, 4)).toEqual(["0.000 %", "0.010 %", "0.020 %", "0.030 %"]);
});

test("a click selects for Python and shows the dashboard; the row stands out", async () => {
  const { model, el } = await mount();
  rows(el)[2]!.click();
  expect(model.get("feature")).toBe(2);
  await soon(() => expect(el.querySelector(".sw-fd .sw-title")!.textContent).toBe("#2"));
  await soon(() => expect(el.querySelector("[aria-selected=true] .sw-fb-id")!.textContent).toBe("#2"));
  await soon(() => expect(el.querySelectorAll(".sw-fd-example")).toHaveLength(1));
});

test("what Python selects is scrolled into view", async () => {
  const { model, el } = await mount();
  model.set("feature", 2000);
  await soon(() => expect(ids(el)).toContain("#2000"));
  const grid = el.querySelector<HTMLElement>("[role=grid]")!;
  expect(grid.tabIndex).toBe(0);
  const active = grid.getAttribute("aria-activedescendant")!;
  expect(document.getElementById(active)!.textContent).toContain("#2000");
});

test("headers sort, first the largest, then the smallest; aria-sort says so", async () => {
  const { model, el } = await mount();
  head(el, "density").click();
  expect([model.get("sort"), model.get("descending")]).toEqual(["density", true]);
  await soon(() => expect(el.querySelector("[aria-sort=descending]")?.textContent).toContain("density"));
  press(el.querySelector(".sw-fb-scroll")!, "Home");
  expect(model.get("feature")).toBe(SIZE - 1);
  head(el, "density").click();
  await soon(() => expect(el.querySelector("[aria-sort=ascending]")).not.toBeNull());
  press(el.querySelector(".sw-fb-scroll")!, "Home");
  expect(model.get("feature")).toBe(0);
});

test("a new order shows its first rows; the selected one stays selected and is found again by a key", async () => {
  const { model, el } = await mount({ feature: 1500 });
  await soon(() => expect(ids(el)).toContain("#1500"));
  const scroller = el.querySelector<HTMLElement>(".sw-fb-scroll")!;
  expect(scroller.scrollTop).toBeGreaterThan(0);
  for (const first of [`#${SIZE - 1}`, "#0"]) {
    head(el, "density").click();
    await soon(() => expect(ids(el)[0]).toBe(first));
    expect(scroller.scrollTop).toBe(0);
    expect(model.get("feature")).toBe(1500);
  }
  press(scroller, "ArrowDown");
  expect(model.get("feature")).toBe(1501);
  await soon(() => expect(ids(el)).toContain("#1501"));
});

test("nothing that takes the focus stands inside another; a header is described by its definition", async () => {
  const { el } = await mount();
  expect(el.querySelector("button [tabindex], button button, [role=grid] [role=rowgroup][tabindex='0']")).toBeNull();
  const described = head(el, "density").getAttribute("aria-describedby")!;
  expect(document.getElementById(described)!.textContent).toContain("The share of scanned tokens");
  el.querySelector<HTMLElement>(".sw-fb-scroll")!.focus(); // as a click on a row does
  expect(document.activeElement).toBe(el.querySelector("[role=grid]"));
});

test("dead and dense features are hidden on demand", async () => {
  const { model, el } = await mount();
  expect(ids(el)).not.toContain("#5");
  const [dead, dense] = [...el.querySelectorAll<HTMLInputElement>("input[type=checkbox]")];
  dead!.click();
  expect(model.get("hide_dead")).toBe(false);
  await soon(() => expect(ids(el)).toContain("#5"));
  dense!.click();
  await soon(() => expect(ids(el)).not.toContain("#6"));
});

test("a search asks the index and lists best first; clearing it lists all", async () => {
  const { model, el } = await mount();
  const field = el.querySelector<HTMLInputElement>("input[type=search]")!;
  field.value = " word7";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await soon(() => expect(model.get("query")).toBe(" word7"));
  await soon(() => expect(ids(el)).toEqual(["#7", "#2000", "#1"]));
  expect(el.textContent).toContain("3 features active on a token that says \u201c word7\u201d");
  press(field, "Escape");
  await soon(() => expect(rows(el).length).toBeGreaterThan(3));
});

test("a search that finds nothing says so in the index's sentence", async () => {
  const { el } = await mount();
  const field = el.querySelector<HTMLInputElement>("input[type=search]")!;
  field.value = "zebra";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await soon(() => expect(el.textContent).toContain("no feature is active on a token that says 'zebra'"));
  expect(rows(el)).toHaveLength(0);
});

test("/ goes to the search, j and k walk the rows as they are sorted", async () => {
  const { model, el } = await mount({ sort: "density", descending: true, feature: 2 });
  press(el.querySelector(".sw-title")!, "/");
  expect(document.activeElement).toBe(el.querySelector("input[type=search]"));
  press(el.querySelector(".sw-title")!, "j");
  expect(model.get("feature")).toBe(1);
  await soon(() => expect(el.querySelector(".sw-fd .sw-title")!.textContent).toBe("#1"));
  press(el.querySelector(".sw-title")!, "k");
  expect(model.get("feature")).toBe(2);
});

test("without a kernel the table sorts and searches, unrecorded rows are off, and j skips them", async () => {
  const { model, el } = await mount({ _live: false, _recorded: [1, 7] });
  expect(rows(el)[0]!.classList.contains("sw-fb-off")).toBe(true);
  expect(rows(el)[0]!.title).toBe("not recorded with this page");
  expect(el.textContent).toContain("2 of 3,000 features can be opened");
  press(el.querySelector(".sw-title")!, "j");
  expect(model.get("feature")).toBe(7);
  rows(el)[0]!.click();
  await soon(() => expect(el.textContent).toContain("#0 is not among them"));
  const known = el.querySelector(".sw-fb-right .sw-fd-measures")!.textContent!; // what the table says stays
  expect(known).toContain("density");
  expect(known).toContain(rows(el)[0]!.querySelectorAll(".sw-number")[1]!.textContent!);
  const field = el.querySelector<HTMLInputElement>("input[type=search]")!;
  field.value = "BOLD";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await soon(() => expect(ids(el)).toEqual(["#7"]));
  expect(rows(el)[0]!.querySelector(".sw-fb-words")!.textContent).toBe("<b>bold</b>");
  expect(rows(el)[0]!.querySelector("b")).toBeNull();
  field.value = "zebra";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await soon(() => expect(el.textContent).toContain("a text of several tokens is looked for only with Python"));
});

test("of several indexes one is chosen by name", async () => {
  const { model, el } = await mount({ _names: ["demo", "other"] });
  const select = el.querySelector<HTMLSelectElement>("select")!;
  select.value = "other";
  select.dispatchEvent(new Event("change", { bubbles: true }));
  expect(model.get("index_name")).toBe("other");
});

test("taking the view down leaves nothing behind", async () => {
  const { model, el, unmount, close } = await mount();
  model.set("feature", 2000);
  await soon(() => expect(ids(el)).toContain("#2000")); // it listens by now
  const off = vi.spyOn(model, "off");
  unmount();
  close();
  expect(el.childElementCount).toBe(0);
  const left = () => off.mock.calls.map(([event]) => event);
  await soon(() => expect(left()).toEqual(expect.arrayContaining(["change:feature", "change:query", "msg:custom"])));
});

test("rows without a number come last, whichever way", () => {
  const table = readTable({ result: tableAnswer().result as TableResult, buffers: views(tableAnswer()) });
  const wanted = { sort: "mean", hideDead: false, hideDense: false, only: null, found: null } as const;
  expect(listed(table, { ...wanted, descending: true }).at(-1)).toBe(DEAD);
  expect(listed(table, { ...wanted, descending: false }).at(-1)).toBe(DEAD);
  expect([...listed(table, { ...wanted, descending: false, sort: "max", only: [3, 9], found: [9, 3, 4] })]).toEqual([9, 3]);
});

test("a page without a kernel finds what the index finds, in its order", () => {
  const table = readTable({ result: tableAnswer().result as TableResult, buffers: views(tableAnswer()) });
  const matches = readMatches({ result: { n: 16 }, buffers: views(matchesAnswer()) });
  expect(searchHere(table, matches, " bridge")).toEqual([8, 7]); // by the score, not by the number
  expect(searchHere(table, matches, "b")).toEqual([7, 8]); // part of two tokens: the better of the two counts
  expect(searchHere(table, matches, "#2999")).toEqual([2999]);
  expect(() => searchHere(table, matches, "#3000")).toThrow("feature 3000 is not in this index: it holds 0 to 2999");
  expect(searchHere(table, matches, "12")).toEqual([12, 3]); // its number comes first, and it is text as well
});

test("a hundred thousand rows are sorted", () => {
  const n = 131_072;
  const density = Float32Array.from({ length: n }, (_, i) => (i * 7919) % n);
  const table = { d_sae: n, density, is: () => false } as never;
  const order = listed(table, { sort: "density", descending: true, hideDead: true, hideDense: true, only: null, found: null });
  expect([order.length, density[order[0]!], density[order.at(-1)!]]).toEqual([n, n - 1, 0]);
});

function views({ buffers }: Recorded): DataView[] {
  return buffers.map((text) => new DataView(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer));
}
