// Builds ../built from src: one file for the page, one for its workers, and the files that are copied as they are.
import { build } from "esbuild";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const out = here("../built");
await mkdir(out, { recursive: true });
await build({
  entryPoints: { app: here("src/app.ts"), worker: here("src/worker.ts") },
  outdir: out,
  absWorkingDir: here("."),
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  legalComments: "none",
  charset: "ascii",
});
for (const name of ["index.html", "style.css", "icon.svg"]) await copyFile(here(`src/${name}`), `${out}/${name}`);
const licences = "The page contains no code of others. It is part of Crucible and under its licence.\n";
await writeFile(`${out}/licences.txt`, licences);
