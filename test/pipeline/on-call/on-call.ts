import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { PipelineInput } from "../../../lib/definition/pipeline.ts";
import { eventually } from "../../eventually.ts";
import type { CaptureBench } from "../capture-bench.ts";
import { type OnCallRow, onCallRows, patternOf, quotedIn } from "./on-call-table.ts";

/** A test of a row of the table "When it rings": the row is what it compares with. */
export function onCall(number: number, body: (row: OnCallRow) => Promise<void>): void {
  const row = onCallRows.find((each) => each.number === number);
  test(`${number}: ${row?.what ?? "no such row in docs/11-operations.md"}`, async () => {
    if (row === undefined) throw new Error(`docs/11-operations.md has no row ${number}`);
    await body(row);
  });
}

const LIBRARY = fileURLToPath(new URL("../../../lib/index.ts", import.meta.url));

/** Gives the bench a definition that doctor finds no fault with: handlers that load, and the retention of the emulated stream. */
export async function sound(bench: CaptureBench): Promise<void> {
  const file = bench.environment.TRIBUTARY_PIPELINE as string;
  const text = await readFile(file, "utf8");
  const definition = JSON.parse(text.replace(/^export default (.*);$/s, "$1")) as PipelineInput;
  const consumers = definition.consumers?.map((each) => ({ ...each, entry: "handler.ts" }));
  const stream = { ...definition.stream, retentionHours: 24 };
  await writeFile(file, `export default ${JSON.stringify({ ...definition, consumers, stream })};`);
  await writeFile(
    join(dirname(file), "handler.ts"),
    `import { consumer, Operation } from ${JSON.stringify(LIBRARY)};
export const handler = consumer(${JSON.stringify(bench.consumer.name)}).on("public.orders", Operation.Create, () => {}).handler();
`,
  );
}

type Environment = Readonly<Record<string, string>>;
/** Where verbs are run: on a capture bench, or beside `tributary dev`. */
interface Place {
  run(
    environment: Environment,
    ...args: string[]
  ): { readonly ended: Promise<unknown>; readonly lines: readonly string[] };
}

/**
 * Runs `tributary status` and `tributary doctor` until they say what the row quotes, and returns the command that mends it, as one of
 * the two printed it. Status says that the pipeline is not healthy, unless `healthy`; doctor finds a problem where the row quotes its code.
 */
export async function whatMends(
  row: OnCallRow,
  place: Place,
  { environment = {}, healthy = false }: { environment?: Environment; healthy?: boolean } = {},
): Promise<string> {
  const [status, doctor] = await Promise.all([
    untilSaid(place, environment, "status", row.status),
    untilSaid(place, environment, "doctor", row.doctor),
  ]);
  expect(status.code, status.text).toBe(healthy ? 0 : 1);
  if (row.codes.some((code) => row.doctor.includes(`\`${code}\``))) expect(doctor.code, doctor.text).toBe(1);
  const pattern = patternOf(row.command);
  const [printed] = pattern.exec(status.text) ?? pattern.exec(doctor.text) ?? [];
  if (printed === undefined) throw new Error(`nobody prints ${row.command}:\n${status.text}\n${doctor.text}`);
  return printed;
}

/** A state arrives with the task's next report: what is not said yet is asked for again. */
async function untilSaid(place: Place, environment: Environment, verb: string, cell: string) {
  let last = { code: 0 as unknown, text: "" };
  let missing: string[] = [];
  return await eventually(
    async () => {
      const command = place.run(environment, verb);
      last = { code: await command.ended, text: command.lines.join("\n") };
      missing = quotedIn(cell).filter((quoted) => !patternOf(quoted).test(last.text));
      return missing.length === 0 && last;
    },
    { what: () => `${verb} says ${missing.join(" and ")}:\n${last.text}`, deadlineMs: 60_000 },
  );
}

/** Runs a printed `tributary` command, and what it says is to be run to confirm it; returns what they printed. */
export async function runPrinted(
  place: Place,
  printed: string,
  environment: Environment = {},
): Promise<string> {
  const command = place.run(environment, ...argumentsOf(printed));
  const code = await command.ended;
  const text = command.lines.join("\n");
  if (code === 0) return text;
  const repeat = command.lines.find((line) => line.includes("--confirm"));
  if (repeat === undefined || printed.includes("--confirm"))
    throw new Error(`${printed}: exit code ${code}\n${text}`);
  return await runPrinted(place, repeat, environment);
}

function argumentsOf(printed: string): string[] {
  const [, words = ""] = /(?:npm run -s tributary --|npx tributary-cdc) ([^()\n]*)/.exec(printed) ?? [];
  if (words === "") throw new Error(`no command in: ${printed}`);
  return words
    .trim()
    .split(/\s+/)
    .map((word) => word.replace(/^'(.*)'$/, "$1"));
}

/** Waits until `tributary status` says that the pipeline is healthy. */
export async function becomesHealthy(place: Place, environment: Environment = {}): Promise<void> {
  let last = "";
  await eventually(
    async () => {
      const command = place.run(environment, "status");
      const code = await command.ended;
      last = command.lines.join("\n");
      return code === 0;
    },
    { what: () => `healthy:\n${last}`, deadlineMs: 60_000 },
  );
}
