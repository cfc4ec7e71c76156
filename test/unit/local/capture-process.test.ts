import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { CaptureProcess } from "../../../lib/local/capture-process.ts";
import { eventually } from "../../eventually.ts";

/** A capture task that prints these lines, and then ends so. */
function start(lines: readonly object[], end: string) {
  const directory = mkdtempSync(join(tmpdir(), "tributary-capture-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const program = join(directory, "capture.mjs");
  const prints = lines.map((line) => `console.log(${JSON.stringify(JSON.stringify(line))});`);
  writeFileSync(program, `${prints.join("\n")}\n${end}`);
  const shown: string[] = [];
  const failures: string[] = [];
  const capture = new CaptureProcess({
    environment: {},
    program,
    onLog: (line) => shown.push(line),
    onFailure: ({ message }) => failures.push(message),
  });
  onTestFinished(() => capture.stop());
  return { shown, failures };
}

const refused = {
  level: "ERROR",
  message: "the backfill of public.k is refused",
  remedy: "give the table a key",
  code: "BACKFILL_REFUSED",
};
const metrics = { tributary: "capture", changes: 0 };

test("an error that capture goes on behind is shown with its remedy, once", async () => {
  const { shown, failures } = start([refused, metrics, metrics], "setInterval(() => {}, 1000);");
  const line = [
    "capture: the backfill of public.k is refused",
    "  What to do: give the table a key",
    "  More: npm run -s tributary -- explain BACKFILL_REFUSED",
  ].join("\n");
  await eventually(() => shown.length > 0, { what: "the error to be shown" });
  expect([shown, failures]).toEqual([[line], []]);
});

test("an error that ends capture for good is its failure, and not shown beside it", async () => {
  const { shown, failures } = start([metrics, refused], "process.exit(2);");
  await eventually(() => failures.length > 0, { what: "the failure" });
  expect([shown, failures]).toEqual([[], [refused.message]]);
});

test("metrics are for CloudWatch: a line of them is not shown, whatever it tells of", async () => {
  const others = ["capture-backfill", "pause", "standing"].map((tributary) => ({ tributary }));
  const { shown } = start(
    [metrics, ...others, { level: "INFO", message: "streams" }],
    "setInterval(() => {}, 1000);",
  );
  await eventually(() => shown.length > 0, { what: "the line behind them" });
  expect(shown).toEqual([expect.stringContaining("streams")]);
});
