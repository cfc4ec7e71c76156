import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const ROOT = resolve(import.meta.dirname, "..");

/**
 * The modules, and what each may import of the others. A file belongs to the longest prefix that fits. An arrow that is not
 * here is a decision: AGENTS.md says what each module is for.
 */
const MODULES: Readonly<Record<string, readonly string[]>> = {
  "lib/change/": [],
  "lib/log.ts": [],
  "lib/failpoint.ts": [],
  "lib/failpoint-none.ts": ["lib/failpoint.ts"],
  "lib/backoff.ts": [],
  "lib/aws/": [],
  "lib/telemetry/": ["lib/log.ts"],
  "lib/definition/": ["lib/change/"],
  "lib/publish/": ["lib/change/", "lib/definition/"],
  "lib/claim-check/": ["lib/change/", "lib/aws/"],
  "lib/stream/": ["lib/change/", "lib/backoff.ts", "lib/failpoint.ts", "lib/aws/"],
  "lib/stream/kinesis/": ["lib/failpoint.ts", "lib/aws/", "lib/stream/"],
  "lib/source/outbox/event/": ["lib/change/", "lib/definition/", "lib/publish/"],
  "lib/source/postgres/": [
    ...["lib/change/", "lib/definition/", "lib/publish/", "lib/telemetry/", "lib/log.ts", "lib/failpoint.ts"],
    ...["lib/backoff.ts", "lib/source/outbox/event/"],
  ],
  "lib/source/": ["lib/change/", "lib/definition/", "lib/publish/", "lib/log.ts", "lib/source/postgres/"],
  // The contract knows the log's records, and so the log's entry in the list of kinds stands above it.
  "lib/source/postgres/plan.ts": [
    ...["lib/change/", "lib/definition/", "lib/source/", "lib/source/postgres/"],
  ],
  "lib/source/postgres/kind.ts": [
    "lib/change/",
    "lib/source/postgres/plan.ts",
    ...["lib/publish/", "lib/source/outbox/event/"],
    ...["lib/source/", "lib/source/postgres/"],
  ],
  "lib/source/batch/": [
    ...["lib/change/", "lib/definition/", "lib/log.ts", "lib/failpoint.ts"],
    ...["lib/source/postgres/", "lib/source/"],
  ],
  "lib/source/triggers/": [
    ...["lib/change/", "lib/definition/", "lib/log.ts"],
    ...["lib/source/postgres/", "lib/source/batch/"],
  ],
  "lib/source/polling/": [
    ...["lib/change/", "lib/definition/"],
    ...["lib/source/postgres/", "lib/source/", "lib/source/batch/"],
  ],
  "lib/source/outbox/": [
    ...["lib/change/", "lib/definition/", "lib/publish/", "lib/log.ts", "lib/failpoint.ts", "lib/backoff.ts"],
    ...["lib/source/postgres/", "lib/source/", "lib/source/outbox/event/"],
  ],
  "lib/source/index.ts": [
    ...["lib/change/", "lib/definition/", "lib/source/"],
    ...["lib/source/postgres/kind.ts", "lib/source/triggers/", "lib/source/polling/", "lib/source/outbox/"],
  ],
  // What a definition is, is below the sources; the function that validates one asks their list for each kind's own part.
  "lib/definition/pipeline.ts": [
    ...[
      "lib/change/",
      "lib/definition/",
      "lib/source/index.ts",
      "lib/source/postgres/",
      "lib/source/triggers/",
    ],
    ...["lib/source/polling/", "lib/source/outbox/"],
  ],
  "lib/definition/file.ts": ["lib/change/", "lib/definition/", "lib/definition/pipeline.ts"],
  "lib/state/": [
    "lib/change/",
    "lib/definition/",
    "lib/backoff.ts",
    "lib/aws/",
    "lib/source/",
    "lib/source/postgres/",
  ],
  "lib/credentials/": ["lib/change/", "lib/aws/", "lib/source/postgres/"],
  "lib/consume/": [
    ...["lib/change/", "lib/definition/", "lib/aws/", "lib/failpoint.ts", "lib/backoff.ts", "lib/telemetry/"],
    ...["lib/claim-check/", "lib/state/"],
  ],
  "lib/verify/": ["lib/change/", "lib/source/postgres/", "lib/consume/"],
  "lib/sink/": ["lib/change/", "lib/consume/"],
  "lib/index.ts": ["lib/change/", "lib/consume/"],
  "lib/capture/": [
    ...["lib/change/", "lib/definition/", "lib/log.ts", "lib/telemetry/", "lib/stream/", "lib/state/"],
    ...["lib/source/", "lib/source/index.ts", "lib/source/postgres/"],
    "lib/consume/",
  ],
  "lib/admin/": [
    "lib/backoff.ts",
    ...["lib/change/", "lib/definition/", "lib/source/", "lib/source/index.ts", "lib/source/postgres/"],
    ...["lib/state/", "lib/consume/", "lib/aws/", "lib/telemetry/", "lib/claim-check/", "lib/capture/"],
    "lib/failpoint.ts",
    // Names of row types, as init gives them.
    "lib/init/",
  ],
  "lib/cost/": [],
  // The catalogue of codes: no handler imports it, so that no bundle has it.
  "lib/explain/": ["lib/change/", "lib/telemetry/"],
  "lib/init/": ["lib/change/", "lib/definition/", "lib/source/postgres/"],
  "lib/cli/": [
    ...[
      "lib/change/",
      "lib/definition/",
      "lib/definition/pipeline.ts",
      "lib/definition/file.ts",
      "lib/log.ts",
      "lib/aws/",
      "lib/telemetry/",
      "lib/publish/",
      "lib/state/",
    ],
    ...[
      "lib/source/",
      "lib/source/index.ts",
      "lib/source/postgres/",
      "lib/source/triggers/",
      "lib/credentials/",
    ],
    ...["lib/consume/", "lib/verify/", "lib/admin/", "lib/cost/", "lib/explain/", "lib/init/", "lib/local/"],
  ],
  "lib/local/aws-limits/": ["lib/aws/"],
  "lib/local/": [
    ...["lib/local/aws-limits/", "lib/backoff.ts"],
    ...[
      "lib/change/",
      "lib/definition/",
      "lib/definition/pipeline.ts",
      "lib/definition/file.ts",
      "lib/aws/",
      "lib/telemetry/",
      "lib/publish/",
      "lib/claim-check/",
    ],
    ...["lib/source/index.ts", "lib/source/postgres/", "lib/state/", "lib/consume/", "lib/capture/"],
    ...["lib/verify/", "lib/admin/", "functions/", "cdk/"],
  ],
  "lib/testing/handler/": [
    ...["lib/change/", "lib/definition/", "lib/aws/", "lib/consume/", "lib/local/aws-limits/"],
  ],
  "lib/testing/": [
    ...[
      "lib/change/",
      "lib/definition/",
      "lib/definition/pipeline.ts",
      "lib/aws/",
      "lib/failpoint.ts",
      "lib/publish/",
      "lib/claim-check/",
    ],
    ...[
      "lib/source/index.ts",
      "lib/source/postgres/",
      "lib/source/triggers/",
      "lib/consume/",
      "lib/capture/",
    ],
    ...["lib/index.ts", "lib/local/"],
  ],
  "functions/": [
    ...[
      "lib/change/",
      "lib/definition/file.ts",
      "lib/aws/",
      "lib/telemetry/",
      "lib/claim-check/",
      "lib/state/",
    ],
    ...["lib/source/index.ts", "lib/source/postgres/", "lib/credentials/"],
    ...["lib/consume/", "lib/capture/", "lib/stream/kinesis/"],
  ],
  "cdk/": [
    ...[
      "lib/change/",
      "lib/definition/",
      "lib/definition/pipeline.ts",
      "lib/definition/file.ts",
      "lib/aws/",
      "lib/telemetry/",
      "lib/claim-check/",
      "lib/state/",
    ],
    ...["lib/source/", "lib/source/index.ts", "lib/source/postgres/", "lib/credentials/"],
    ...["lib/consume/", "lib/capture/"],
  ],
  "package/": [],
};

/** Names that say nothing of what is inside. */
const EMPTY_NAMES = /^(utils?|common|helpers?|types|misc|shared)(\.ts)?$/;
const IMPORT =
  /(?:\bfrom|\bimport)\s*\(?\s*["'](#(?:redrive|failpoint|claim-directory|remedy)|\.{1,2}\/[^"']+)["']/g;
/** Stand in package.json's imports. `#local` is another package where others install it, and no arrow here. */
const NAMED: Readonly<Record<string, string>> = {
  "#claim-directory": "lib/claim-check/directory.ts",
  "#failpoint": "lib/failpoint.ts",
  "#redrive": "lib/consume/dead-letter/redrive.ts",
  "#remedy": "lib/change/remedy.ts",
};

const files = ["lib", "functions", "cdk", "package"].flatMap(filesBelow).toSorted();
const imports = new Map(files.map((file) => [file, importsOf(file)]));

function filesBelow(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts") && !path.endsWith(".d.ts"))
    .map((path) => `${folder}/${path}`);
}

/** What a file imports of ours, type-only imports too. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), "utf8");
  return [...text.matchAll(IMPORT)]
    .map(([, path = ""]) => NAMED[path] ?? relative(ROOT, resolve(ROOT, dirname(file), path)))
    .filter((path) => existsSync(join(ROOT, path)) && statSync(join(ROOT, path)).isFile());
}

/** What of ours is loaded with a file: its imports but for types, and for what it imports when it is called. */
function loadedBy(file: string): string[] {
  const text = readFileSync(join(ROOT, file), "utf8");
  return [...text.matchAll(/^(?:import|export)\b(?! type)[^;]*?from "(\.{1,2}\/[^"]+)"/gm)].map(([, path]) =>
    relative(ROOT, resolve(ROOT, dirname(file), path as string)),
  );
}

function moduleOf(file: string): string | undefined {
  return Object.keys(MODULES)
    .filter((prefix) => file === prefix || (prefix.endsWith("/") && file.startsWith(prefix)))
    .toSorted((a, b) => b.length - a.length)[0];
}

/** The first way found that leads from a node back to itself; undefined: there is none. */
function cycleIn(nodes: Iterable<string>, next: (node: string) => readonly string[]): string[] | undefined {
  const done = new Set<string>();
  const way: string[] = [];
  const visit = (node: string): string[] | undefined => {
    if (done.has(node)) return undefined;
    const at = way.indexOf(node);
    if (at >= 0) return [...way.slice(at), node];
    way.push(node);
    for (const other of next(node)) {
      const cycle = visit(other);
      if (cycle) return cycle;
    }
    way.pop();
    done.add(node);
    return undefined;
  };
  for (const node of nodes) {
    const cycle = visit(node);
    if (cycle) return cycle;
  }
  return undefined;
}

describe("the tree", () => {
  test("every file belongs to a module", () => {
    expect(files.filter((file) => moduleOf(file) === undefined)).toEqual([]);
  });

  test("imports follow the arrows that a module is allowed", () => {
    const wrong = files.flatMap((file) => {
      const from = moduleOf(file) ?? "";
      return (imports.get(file) ?? [])
        .filter((other) => {
          const to = moduleOf(other) ?? "";
          return to !== from && !MODULES[from]?.includes(to);
        })
        .map((other) => `${file} imports ${other}`);
    });
    expect(wrong).toEqual([]);
  });

  test("no arrow is allowed that no file uses", () => {
    const used = new Set(
      files.flatMap((file) =>
        (imports.get(file) ?? []).map((other) => `${moduleOf(file)} ${moduleOf(other)}`),
      ),
    );
    const unused = Object.entries(MODULES).flatMap(([from, allowed]) =>
      allowed.filter((to) => !used.has(`${from} ${to}`)).map((to) => `${from} to ${to}`),
    );
    expect(unused).toEqual([]);
  });

  test("the arrows between modules have no cycle", () => {
    expect(cycleIn(Object.keys(MODULES), (module) => MODULES[module] ?? [])).toBeUndefined();
  });

  test("the imports between files have no cycle, type-only ones included", () => {
    expect(cycleIn(files, (file) => imports.get(file) ?? [])).toBeUndefined();
  });

  test("Kinesis is imported by its clients, by the stream that it is, and by what stands for AWS on this machine", () => {
    const allowed = ["lib/aws/", "lib/stream/kinesis/", "lib/local/"];
    const wrong = files.filter(
      (file) =>
        readFileSync(join(ROOT, file), "utf8").includes('"@aws-sdk/client-kinesis"') &&
        !allowed.some((prefix) => file.startsWith(prefix)),
    );
    expect(wrong).toEqual([]);
  });

  test("no folder or file has a name that says nothing", () => {
    expect(files.filter((file) => file.split("/").some((part) => EMPTY_NAMES.test(part)))).toEqual([]);
  });

  test("nothing outside of a kind's folder asks which kind of source it is", () => {
    const kinds = readdirSync(join(ROOT, "lib/source"), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith("/kind.ts"))
      .map((path) => dirname(path));
    expect(kinds.length).toBeGreaterThan(3);
    const asks = new RegExp(`(?:[!=]==|case|kind:) "(?:${kinds.join("|")})"`);
    const asking = files
      .filter((file) => !file.startsWith("lib/source/"))
      .filter((file) => asks.test(readFileSync(join(ROOT, file), "utf8")));
    // The demo's own option, and the fault runs of triggers and of polling, are no kinds of a definition's source.
    expect(asking).toEqual(["lib/local/arguments.ts", "lib/testing/checker/batches/checker.ts"]);
  });

  test("who reads a definition loads no driver", () => {
    const loaded = new Set<string>();
    const load = (file: string) => {
      if (loaded.has(file)) return;
      loaded.add(file);
      for (const other of loadedBy(file)) load(other);
    };
    load("lib/definition/pipeline.ts");
    expect(loaded.has("lib/source/postgres/kind.ts")).toBe(true);
    const withDriver = [...loaded].filter((file) =>
      /^import (?!type).* from "pg(-[\w-]+)?"/m.test(readFileSync(join(ROOT, file), "utf8")),
    );
    expect(withDriver).toEqual([]);
  });

  test("a cycle is found where there is one", () => {
    const next = (node: string) => ({ a: ["b"], b: ["c"], c: ["b"] })[node] ?? [];
    expect(cycleIn(["a"], next)).toEqual(["b", "c", "b"]);
  });
});
