import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { withTables } from "../../docs/operations-tables.ts";
import { type Alarm, CAPTURE_ALARM, SOURCE_ALARM } from "../../lib/telemetry/alarms.ts";
import * as metrics from "../../lib/telemetry/metrics.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const page = (name: string) => readFileSync(join(ROOT, "docs", name), "utf8");

test("docs/11 and docs/04 name each variable of the programs that are deployed", () => {
  const files = ["lib", "functions", "cdk"].flatMap((room) =>
    readdirSync(join(ROOT, room), { recursive: true, encoding: "utf8" })
      .map((name) => join(room, name))
      .filter((name) => name.endsWith(".ts") && !/^lib\/(local|testing)\//.test(name)),
  );
  const read = files.flatMap((name) =>
    [...readFileSync(join(ROOT, name), "utf8").matchAll(/\bTRIBUTARY_[A-Z_]*[A-Z]\b/g)].map(
      ([found]) => found,
    ),
  );
  const told = page("11-operations.md") + page("04-consumers.md");
  expect(new Set(read).size).toBeGreaterThan(10);
  expect([...new Set(read)].filter((variable) => !told.includes(`\`${variable}`))).toEqual([]);
});

test("docs/11 has the tables of metrics and alarms as the list has them", () => {
  const told = page("11-operations.md");
  expect(withTables(told)).toBe(told);
  const { CAPTURE_METRIC, TABLE_METRIC, BACKFILL_METRIC, REDRIVE_METRIC, CONSUMER_METRIC } = metrics;
  const names = [CAPTURE_METRIC, TABLE_METRIC, BACKFILL_METRIC, REDRIVE_METRIC, CONSUMER_METRIC]
    .flatMap((kind) => Object.values<metrics.Metric>(kind))
    .map(({ name }) => name);
  expect(names.filter((name) => !told.includes(`\`${name}\``))).toEqual([]);
});

test("an alarm that rings without data watches what a healthy task always publishes", () => {
  const alarms: readonly Alarm[] = [SOURCE_ALARM.slots, SOURCE_ALARM.tables, CAPTURE_ALARM].flatMap((set) =>
    Object.values<Alarm>(set),
  );
  const known: Readonly<Record<string, metrics.Metric>> = metrics.CAPTURE_METRIC;
  const wrong = alarms.filter(({ metric, missing }) => missing === "dead" && known[metric]?.whereKnown);
  expect(alarms.length).toBeGreaterThan(8);
  expect(wrong).toEqual([]);
});

test("a page that has lost a table's place is refused", () => {
  const told = page("11-operations.md");
  expect(() => withTables(told.replace("<!-- consumer metrics -->", ""))).toThrow("consumer metrics");
});
