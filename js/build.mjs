// One bundle a widget: src/<widget>/index.tsx becomes saewidgets/widgets/static/<widget>.js, one ESM file that
// imports nothing, because a notebook host loads it from a blob address where relative imports cannot work.
//
//   node build.mjs            build all, print the sizes, fail over the limit
//   node build.mjs --watch    build again whenever a source changes

import * as esbuild from "esbuild";
import { existsSync } from "node:fs";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const LIMIT = 120_000; // bytes a bundle, minified
const here = path.dirname(fileURLToPath(import.meta.url));
const sources = path.join(here, "src");
const target = path.join(here, "..", "saewidgets", "widgets", "static");

async function entryPoints() {
  const entries = {};
  for (const folder of (await readdir(sources, { withFileTypes: true })).filter((entry) => entry.isDirectory())) {
    if (folder.name === "shared") continue;
    const file = ["index.tsx", "index.ts"].map((name) => path.join(sources, folder.name, name)).find(existsSync);
    if (file) entries[folder.name] = file;
  }
  return entries;
}

// Written beside and renamed, so that a kernel which reads a bundle during a build never gets half of it.
async function writeBundles(result) {
  await mkdir(target, { recursive: true });
  const written = [];
  for (const { path: file, contents } of result.outputFiles) {
    const partial = `${file}.${process.pid}.partial`;
    await writeFile(partial, contents);
    await rename(partial, file);
    written.push({ name: path.basename(file), bytes: contents.length });
  }
  for (const name of await readdir(target)) {
    if (name.endsWith(".js") && !written.some((bundle) => bundle.name === name)) await rm(path.join(target, name));
  }
  return written;
}

function report(written) {
  for (const { name, bytes } of written) {
    console.log(`${name.padEnd(28)} ${(bytes / 1000).toFixed(1).padStart(6)} kB${bytes > LIMIT ? "  over the limit" : ""}`);
  }
  const over = written.filter(({ bytes }) => bytes > LIMIT);
  if (over.length > 0) {
    console.error(`${over.map(({ name }) => name).join(", ")}: a bundle may have at most ${LIMIT / 1000} kB. Make it smaller.`);
  }
  return over.length === 0;
}

const entries = await entryPoints();
if (Object.keys(entries).length === 0) {
  console.error("No widget found: expected js/src/<widget>/index.tsx.");
  process.exit(1);
}

const options = {
  entryPoints: entries,
  outdir: target,
  write: false,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  jsx: "automatic",
  jsxImportSource: "preact",
  define: { "process.env.NODE_ENV": '"production"' },
  loader: { ".css": "text" },
  banner: { js: "/* saewidgets, MIT. Contains Preact, MIT, (c) 2015-present Jason Miller. */" },
  logLevel: "warning",
};

if (process.argv.includes("--watch")) {
  const afterEachBuild = {
    name: "after-each-build",
    setup(build) {
      build.onEnd(async (result) => {
        if (result.errors.length === 0) report(await writeBundles(result));
      });
    },
  };
  const context = await esbuild.context({ ...options, plugins: [afterEachBuild] });
  await context.watch();
  console.log("Watching js/src. A new widget's folder needs a new start.");
} else {
  let result;
  try {
    result = await esbuild.build(options);
  } catch {
    process.exit(1); // esbuild has said where and why
  }
  if (!report(await writeBundles(result))) process.exitCode = 1;
}
