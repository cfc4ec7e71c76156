import { mkdirSync, writeFileSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildSync } from "esbuild";

/** The directory of the capture program's source. */
export const CAPTURE = fileURLToPath(new URL("../../functions/capture/", import.meta.url));
const COMMAND = fileURLToPath(new URL("../../lib/cli/", import.meta.url));
/** TypeScript here, JavaScript where the package is installed. */
const ENDING = extname(import.meta.filename);

/**
 * Writes `main.mjs`, `health.mjs` and `operate.mjs` to a directory: the programs as the image runs them, runnable by any Node 24. The last one
 * is the operator's command: `tributary <verb> --remote` runs it as a task of its own.
 */
export function buildCapture(directory: string): void {
  programs ??= bundle();
  mkdirSync(directory, { recursive: true });
  for (const [name, program] of programs) writeFileSync(join(directory, name), program);
}

/** Built once a process: the pipelines of an app have the same programs. */
let programs: ReadonlyMap<string, Uint8Array> | undefined;

function bundle(): ReadonlyMap<string, Uint8Array> {
  const { outputFiles } = buildSync({
    entryPoints: [
      ...["main", "health"].map((name) => join(CAPTURE, `${name}${ENDING}`)),
      join(COMMAND, `operate${ENDING}`),
    ],
    // Each is one file, whatever folder its source stands in.
    entryNames: "[name]",
    outdir: CAPTURE,
    write: false,
    // Not that of the app around it: the same program, and the same hash, in every project.
    tsconfigRaw: {},
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    minify: true,
    keepNames: true,
    mainFields: ["module", "main"],
    // CommonJS packages inside of an ES module ask for what Node gives to CommonJS only.
    banner: { js: REQUIRE_BANNER },
    // pg asks for it if it is there; handlers are not in the image, and nobody asks for what looks at them.
    external: ["pg-native", "../local/handler-inspection.*"],
    logLevel: "error",
  });
  return new Map(outputFiles.map(({ path, contents }) => [basename(path), contents]));
}

/** Gives `require` to CommonJS packages that were bundled into an ES module. */
export const REQUIRE_BANNER =
  'import{createRequire as tributaryRequire}from"node:module";const require=tributaryRequire(import.meta.url);';
