import { expect, test } from "vitest";
import cases from "../../../tests/features/matching_cases.json";
import { bare, closeness, numberIn } from "./matching";

test.each(cases.tokens)("$text on $token", ({ text, token, whole = false, closeness: expected }) => {
  for (const kind of ["special", "hex"] as const) expect(closeness(text, bare(text), { text: token, [kind]: whole })).toBe(expected);
});

test.each(cases.numbers)("$text as a number", ({ text, number, only }) => {
  expect(numberIn(text)).toEqual({ number, only });
});
