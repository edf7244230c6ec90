import { expect, test } from "vitest";
import browser from "../feature_browser/look.css";
import dashboard from "../feature_dashboard/look.css";
import panel from "../steering_panel/look.css";
import sweep from "../sweep_monitor/look.css";
import heatmap from "../token_heatmap/look.css";
import monitor from "../training_monitor/look.css";
import shared from "./look.css";

/** The selectors of a sheet, those inside @container too. */
function selectors(sheet: string): string[] {
  const rules = sheet.replace(/\/\*[^]*?\*\//g, "").replace(/@container[^{]+\{/g, "");
  return [...rules.matchAll(/([^{}]+)\{[^}]*\}/g)].flatMap(([, list]) => list!.split(",").map((one) => one.trim()));
}

// Sheets of several widgets stand in one page: a rule without the class of its widget would hit them all.
test.each([
  ["sw-feature-browser", browser],
  ["sw-feature-dashboard", dashboard],
  ["sw-steering-panel", panel],
  ["sw-sweep-monitor", sweep],
  ["sw-token-heatmap", heatmap],
  ["sw-training-monitor", monitor],
])("every rule of %s begins with its root", (name, sheet) => {
  const found = selectors(sheet);
  expect(found.length).toBeGreaterThan(8);
  expect(found.filter((selector) => !selector.startsWith(`.sw-root.${name} `))).toEqual([]);
});

test("every rule of the shared sheet stands under the root", () => {
  expect(selectors(shared).filter((selector) => !/^\.sw-root(\.sw-root)?($|[ [])/.test(selector))).toEqual([]);
});

test("a sweep's columns stay its own beside a run's monitor, whose sheet it wears and whose own may come later in the page", () => {
  const classes = (sheet: string) => selectors(sheet).filter((one) => one.includes(".sw-curves")).map((one) => one.split(".").length);
  expect(Math.min(...classes(sweep))).toBeGreaterThan(Math.max(...classes(monitor)));
});
