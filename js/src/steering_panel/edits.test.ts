import { expect, test } from "vitest";
import { type Edit, namedTicks, type Place, sliderOf } from "./edits";
import { apart } from "./NextTokens";

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

test("two probabilities that differ look different", () => {
  expect(apart(0.982, 0.979)).toEqual(["98.2 %", "97.9 %"]);
  expect(apart(0.31, 0.62)).toEqual(["31 %", "62 %"]);
  expect(apart(0.5, 0.5001)).toEqual(["50 %", "50 %"]); // by less than is printed anywhere
});
