import { expect, test } from "vitest";
import cases from "../../../tests/features/matching_cases.json";
import { bare, closeness, numberIn, ranked } from "./matching";

test.each(cases.tokens)("$text on $token", ({ text, token, whole = false, closeness: expected }) => {
  for (const kind of ["special", "hex"] as const) expect(closeness(text, bare(text), { text: token, [kind]: whole })).toBe(expected);
});

test.each(cases.numbers)("$text as a number", ({ text, number, only }) => {
  expect(numberIn(text)).toEqual({ number, only });
});

test.each(cases.rankings)("the features that $text finds", ({ text, tokens, ranked: expected }) => {
  const scored = (tokens as { token: string; whole?: boolean; features: [number, number][] }[]).map(({ token, whole = false, features }) => ({
    token: { text: token, special: whole },
    features: features.map(([feature]) => feature),
    scores: features.map(([, score]) => score),
  }));
  expect(ranked(text, 10, scored)).toEqual(expected); // of features 0 to 9
});
