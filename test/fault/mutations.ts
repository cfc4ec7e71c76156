import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { MUTATIONS } from "./mutations/all.ts";
import type { Mutation } from "./mutations/mutation.ts";

/*
 * npm run test:mutations [-- --only 4]
 *
 * Breaks what must not be broken, one deliberate breakage at a time, in a copy of the tree, and expects the tests
 * that guard it to fail. A breakage that no test sees is a hole in the tests: exit code 1.
 */

const { values } = parseArgs({ options: { only: { type: "string" } } });
const chosen = MUTATIONS.filter((_, i) => !values.only || values.only.split(",").includes(String(i + 1)));

const root = resolve(import.meta.dirname, "../..");
const copy = await mkdtemp(join(tmpdir(), "tributary-mutations-"));
let survived = 0;
try {
  await copyTree();
  const unbroken = new Set<string>();
  for (const mutation of chosen) {
    if (!unbroken.has(mutation.tests.join())) {
      const whole = await runTests(mutation.tests);
      if (whole.failed !== 0 || whole.passed === 0) {
        throw new Error(
          `${mutation.tests}: must pass before anything is broken:\n${whole.failures.join("\n")}`,
        );
      }
      unbroken.add(mutation.tests.join());
    }
    const outcome = await broken(mutation, () => runTests(mutation.tests));
    if (outcome === undefined) {
      survived++;
      console.log(
        `${mutation.name.padEnd(46)} its text is no longer in ${mutation.file}: bring it up to date`,
      );
      continue;
    }
    const { failed, failures } = outcome;
    const verdict = failed > 0 ? `red` : "SURVIVED";
    if (failed === 0) survived++;
    console.log(`${mutation.name.padEnd(46)} ${verdict}`);
    for (const failure of failures.slice(0, 3)) console.log(`    ${failure}`);
  }
} finally {
  await rm(copy, { recursive: true, force: true });
}
process.exit(survived > 0 ? 1 : 0);

async function copyTree(): Promise<void> {
  for (const part of [
    "lib",
    "functions",
    "cdk",
    "test",
    "package.json",
    "tsconfig.json",
    "vitest.config.ts",
  ]) {
    await cp(join(root, part), join(copy, part), { recursive: true });
  }
  await symlink(join(root, "node_modules"), join(copy, "node_modules"));
}

/** Runs something while the breakage is in the copy; undefined: the text to break is not there, or not once. */
async function broken<T>({ file, from, to }: Mutation, run: () => Promise<T>): Promise<T | undefined> {
  const path = join(copy, file);
  const text = await readFile(path, "utf8");
  const count = text.split(from).length - 1;
  if (count !== 1) return undefined;
  await writeFile(
    path,
    text.replace(from, () => to),
  );
  try {
    return await run();
  } finally {
    await writeFile(path, text);
  }
}

/** What we read of vitest's JSON report. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/** Failed tests alone count: a file that cannot be loaded says nothing about a promise. */
async function runTests(
  files: readonly string[],
): Promise<{ passed: number; failed: number; failures: readonly string[] }> {
  const report = join(copy, "report.json");
  await rm(report, { force: true });
  const child = spawn(
    // By this Node: the one on the PATH may be older.
    process.execPath,
    [
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      "--bail=1",
      "--reporter=json",
      `--outputFile=${report}`,
      ...files,
    ],
    { cwd: copy, stdio: ["ignore", "pipe", "pipe"], timeout: 900_000 },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  await once(child, "exit");
  const text = await readFile(report, "utf8").catch(() => undefined);
  if (text === undefined) throw new Error(`the tests did not run:\n${output.slice(-3000)}`);
  const { numPassedTests, numFailedTests, testResults } = JSON.parse(text) as Report;
  const failures = testResults.flatMap(({ name, message, assertionResults }) => [
    ...(message ? [`${name}: ${message}`] : []),
    ...assertionResults
      .filter(({ status }) => status === "failed")
      .map(({ fullName, failureMessages }) => `${fullName}: ${failureMessages[0]?.slice(0, 120)}`),
  ]);
  return { passed: numPassedTests, failed: numFailedTests, failures };
}
