import { expect, test } from "vitest";
import { type Edit, linesOfTicks, type Place, sliderOf } from "./edits";
import { isMoved, probability } from "./NextTokens";

const PLACE: Place = { d_sae: 100, hook_name: "h", source: "topk", indexed: false, reach: 18.5, features: {} };
const CLAMP: Edit = { feature: 3, mode: "clamp", value: 8 };

test("without an index a slider ends where x would move by its own length, and says so", () => {
  const slider = sliderOf(CLAMP, undefined, PLACE)!;
  expect(slider.high).toBeCloseTo(18.5);
  expect([...linesOfTicks(slider, 0.1)].map(([{ name, at }, line]) => [name, at, line])).toEqual([["\u2016x\u2016", 18.5, 0]]);
});

test("with one its unit is the feature's maximum", () => {
  const slider = sliderOf({ ...CLAMP, mode: "add" }, { max: 10 }, { ...PLACE, indexed: true })!;
  expect([slider.low, slider.high]).toEqual([-15, 15]);
  expect(slider.ticks.map(({ name }) => name)).toEqual(["0", "max", "\u2212max"]);
});

test("every tick has its name, on a line of its own where others are near", () => {
  const facts = { max: 10, quantiles: [[0.5, 3], [0.9, 8], [0.99, 9]] as [number, number][] };
  const lines = linesOfTicks(sliderOf(CLAMP, facts, { ...PLACE, indexed: true })!, 0.1);
  expect(Object.fromEntries([...lines].map(([{ name }, line]) => [name, line]))).toEqual({ p50: 0, p90: 0, p99: 1, max: 0 });
});

test("a slider reaches to every recorded strength, whatever its value is", () => {
  expect(sliderOf({ ...CLAMP, value: 0 }, undefined, PLACE, [0, 28, 8])!.high).toBeCloseTo(28);
  expect(sliderOf({ ...CLAMP, mode: "scale", value: 2 }, undefined, PLACE, [-8, 2])).toMatchObject({ low: -10, high: 10 });
});

test("probabilities have one decimal each, and say where that is not enough", () => {
  expect([0.982, 0.31, 0.0021, 0, 1].map(probability)).toEqual(["98.2 %", "31.0 %", "0.2 %", "0.0 %", "100.0 %"]);
  expect([0.0004, 0.9997].map(probability)).toEqual(["< 0.1 %", "> 99.9 %"]);
});

test("a probability has moved where it is printed differently, and only there", () => {
  const moved = (before: number, after: number) => isMoved({ before: Float32Array.of(before), after: Float32Array.of(after) });
  expect([moved(0.0001, 0.0009), moved(0.5006, 0.5014), moved(0.5, 0.5)]).toEqual([false, false, false]);
  expect([moved(0.982, 0.979), moved(0.0004, 0.0021)]).toEqual([true, true]);
});
