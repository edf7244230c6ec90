import { readFile } from "node:fs/promises";
import { defineConfig } from "vitest/config";

// The bundles take a stylesheet as text (see build.mjs); the tests must see the same.
const stylesheetsAsText = {
  name: "stylesheets-as-text",
  enforce: "pre",
  async resolveId(source, importer) {
    if (!source.endsWith(".css")) return null;
    const resolved = await this.resolve(source, importer, { skipSelf: true });
    return resolved && `\0text:${resolved.id.replace(/\.css$/, ".stylesheet")}`;
  },
  async load(id) {
    if (!id.startsWith("\0text:")) return null;
    const file = id.slice("\0text:".length).replace(/\.stylesheet$/, ".css");
    return `export default ${JSON.stringify(await readFile(file, "utf8"))};`;
  },
};

export default defineConfig({
  plugins: [stylesheetsAsText],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  test: {
    environment: "happy-dom",
    include: ["src/**/*.test.{ts,tsx}"],
    restoreMocks: true,
    testTimeout: 30_000, // two cores may be busy with more than these tests
  },
});
