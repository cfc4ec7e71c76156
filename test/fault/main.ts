import { explain } from "../../lib/change/error-text.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { seededRandom } from "../../lib/local/shop/catalog.ts";
import type { Findings } from "../../lib/testing/checker/check.ts";
import { Trial, type Verdict } from "../../lib/testing/checker/checker.ts";
import { CONTRACT_FAULTS } from "./contract-faults.ts";
import { FAULTS, type Fault, kills } from "./faults.ts";
import { FORK_FAULTS } from "./fork-faults.ts";
import { IDENTITY_FAULTS } from "./identity-faults.ts";
import { type FaultOptions, readOptions } from "./options.ts";
import { SLOT_FAULTS } from "./slot-faults.ts";

/*
 * npm run test:fault -- --seed 1 [--seeds 1,2,3] [--only "link"] [--strength 2] [--changes 600] [--kills 100] [--slots 2] [--log]
 *
 * One pipeline a seed, one fault after the other while a random workload runs; prints what the checker found of each.
 * Exit code 1 when anything but an append's counted tail is not zero, or a recovery took more than 60 s.
 */

const options = readOptionsOrExit();
const { slots, strength, changes } = options;
const named = [
  ...FAULTS,
  ...CONTRACT_FAULTS,
  ...IDENTITY_FAULTS,
  ...FORK_FAULTS,
  ...(slots > 1 ? SLOT_FAULTS : []),
];
const faults = options.kills
  ? [kills(options.kills)]
  : named.filter(({ name }) => options.only?.test(name) ?? true);
if (faults.length === 0) {
  const remedy = `name some of these: ${named.map(({ name }) => name).join("; ")}`;
  refuse(
    new ConfigurationError("The command line", [{ path: "--only", value: options.only?.source, remedy }]),
  );
}

interface Row {
  readonly fault: string;
  readonly injected: number;
  readonly lost: number;
  readonly extra: number;
  readonly outOfOrder: number;
  readonly duplicates: number;
  readonly tails: number;
  readonly seconds: number | undefined;
  readonly problems: readonly string[];
}

let failed = false;
for (const seed of options.seeds) {
  print(slots > 1 ? `seed ${seed}, ${slots} slots` : `seed ${seed}`);
  print(line(["fault", "injected", "lost", "extra", "order", "duplicates", "(tails)", "recovery s"]));
  failed = !(await run(seed)) || failed;
}
process.exit(failed ? 1 : 0);

async function run(seed: number): Promise<boolean> {
  const random = seededRandom(seed);
  let ok = true;
  let trial: Trial | undefined;
  let before: Verdict | undefined;
  try {
    for (const fault of faults) {
      trial ??= await Trial.start({
        slots,
        onLog: (text) => options.log && process.stderr.write(`${text}\n`),
      });
      const { row, verdict } = await runFault(trial, fault, before, seed, random);
      before = verdict;
      print(rowLine(row) + handlerFailures(trial));
      for (const problem of row.problems) print(`    ${problem}`);
      ok &&= row.problems.length === 0;
      if (row.problems.length === 0 && !fault.beginsAnew) continue;
      // What was broken must not count against the faults to come.
      await trial.stop();
      trial = before = undefined;
    }
  } finally {
    await trial?.stop();
  }
  return ok;
}

async function runFault(
  trial: Trial,
  fault: Fault,
  before: Verdict | undefined,
  seed: number,
  random: () => number,
): Promise<{ row: Row; verdict: Verdict | undefined }> {
  let injected = 0;
  let thrown: unknown;
  const play = fault.beginsAnew ? trial.roundAnew.bind(trial) : trial.round.bind(trial);
  const earlier = fault.beginsAnew ? undefined : before;
  const verdict = await play({
    seed: seed + named.indexOf(fault) * 1000,
    changes,
    // Kills take minutes, in which handlers come to little.
    ...(options.kills ? { changesPerSecond: 60 } : {}),
    faults: async (rig) => {
      try {
        injected = await fault.inject(rig, random, strength);
      } catch (error) {
        thrown = error;
      }
    },
  });
  const sum = (of: (findings: Findings) => number) => total(verdict, of) - (earlier ? total(earlier, of) : 0);
  const problems = [
    ...(thrown ? [`the fault itself failed: ${(thrown as Error).message}`] : []),
    ...(verdict.secondsToRecover === undefined ? ["not everything had arrived after 60 s"] : []),
    ...(verdict.rowMismatches > 0 ? [`${verdict.rowMismatches} rows differ at the end`] : []),
    ...verdict.confirmedTooEarly.slice(0, 3),
    ...Object.entries(verdict.sinks).flatMap(([name, { examples }]) =>
      firstOfEach(examples).map((example) => `${name}: ${example}`),
    ),
    ...(injected === 0 ? ["nothing was injected"] : []),
  ];
  if (problems.length > 0)
    problems.push(
      ...trial.rig.captures.flatMap(({ log }, i) => log.slice(-8).map((text) => `capture ${i + 1}: ${text}`)),
    );
  return {
    verdict,
    row: {
      fault: fault.name,
      injected,
      lost: sum((f) => f.lost),
      extra: sum((f) => f.extra),
      outOfOrder: sum((f) => f.outOfOrder),
      duplicates: sum((f) => f.duplicates),
      tails: sum((f) => f.tailDuplicates),
      seconds: verdict.secondsToRecover,
      problems,
    },
  };
}

/** What invocations failed with in this round: they explain an append's tails. */
function handlerFailures(trial: Trial): string {
  const classes = new Map<string, number>();
  for (const { failures } of trial.rig.consumers) {
    for (const name of failures.splice(0)) classes.set(name, (classes.get(name) ?? 0) + 1);
  }
  return [...classes].map(([name, count]) => `  ${count} ${name}`).join(",");
}

/** Two examples of each kind of finding. */
function firstOfEach(examples: readonly string[]): string[] {
  const kinds = Map.groupBy(examples, (example) => example.split(":")[0]);
  return [...kinds.values()].flatMap((kind) => kind.slice(0, 2));
}

function total(verdict: Verdict, of: (findings: Findings) => number): number {
  return Object.values(verdict.sinks).reduce((sum, findings) => sum + of(findings), 0);
}

function rowLine(row: Row): string {
  const { fault, injected, lost, extra, outOfOrder, duplicates, tails, seconds } = row;
  const numbers = [injected, lost, extra, outOfOrder, duplicates, tails];
  return line([fault, ...numbers.map(String), seconds?.toFixed(1) ?? "never"]);
}

function line(cells: readonly string[]): string {
  return cells.map((cell, i) => (i === 0 ? cell.padEnd(42) : cell.padStart(11))).join("");
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function readOptionsOrExit(): FaultOptions {
  try {
    return readOptions(process.argv.slice(2));
  } catch (error) {
    return refuse(error);
  }
}

function refuse(error: unknown): never {
  process.stderr.write(`${explain(error)}\n`);
  process.exit(2);
}
