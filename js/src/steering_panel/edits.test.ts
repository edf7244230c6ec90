import { expect, test } from "vitest";
import { type Edit, namedTicks, type Place, sliderOf } from "./edits";
import { probability } from "./NextTokens";

const PLACE: Place = { d_sae: 100, hook_name: "h", source: "topk", indexed: false, reach: 18.5, features: {} };
const CLAMP: Edit = { feature: 3, mode: "clamp", value: 8 };

test("without an index a slider ends where x would move by its own length, and says so", () => {
  const slider = sliderOf(CLAMP, undefined, PLACE)!;
  expect(slider.high).toBeCloseTo(18.5);
  expect([...namedTicks(slider, 0.13)].map(({ name, at }) => [name, at])).toEqual([["\u2016x\u2016", 18.5]]);
});

test("with one its unit is the feature's maximum", () => {
  const slider = sliderOf({ ...CLAMP, mode: "add" }, { max: 10 }, { ...PLACE, indexed: true })!;
  expect([slider.low, slider.high]).toEqual([-15, 15]);
  expect(slider.ticks.map(({ name }) => name)).toEqual(["0", "max", "\u2212max"]);
});

test("probabilities have one decimal each, and say where that is not enough", () => {
  expect([0.982, 0.31, 0.0021, 0, 1].map(probability)).toEqual(["98.2 %", "31.0 %", "0.2 %", "0.0 %", "100.0 %"]);
  expect([0.0004, 0.9997].map(probability)).toEqual(["< 0.1 %", "> 99.9 %"]);
});
