import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

/** Node removes types from files outside of node_modules only, and these say by their ending what they are: .mts, .cts, .mjs, .cjs. */
const SAYS_NOTHING = /\.[jt]s$/;
const MODULE_SYNTAX = /^\s*(?:import\s*[\w{*"']|export\s*[\w{*])/m;

/**
 * Imports a file of the user's project, TypeScript too, whatever the project's package.json says of modules: a file that imports and
 * exports is a module. Node alone warns where `type` is missing, and refuses under the "commonjs" that `npm init` writes.
 */
export async function importFile(path: string): Promise<Readonly<Record<string, unknown>>> {
  const hooks = registerHooks({
    resolve(specifier, context, nextResolve) {
      const found = nextResolve(specifier, context);
      return isModule(found.url)
        ? { ...found, format: found.url.endsWith(".ts") ? "module-typescript" : "module" }
        : found;
    },
  });
  try {
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } finally {
    hooks.deregister();
  }
}

function isModule(url: string): boolean {
  if (!url.startsWith("file:") || url.includes("/node_modules/")) return false;
  const [address] = url.split(/[?#]/) as [string];
  if (!SAYS_NOTHING.test(address)) return false;
  try {
    return MODULE_SYNTAX.test(readFileSync(fileURLToPath(address), "utf8"));
  } catch {
    // Node says what is wrong with it.
    return false;
  }
}
