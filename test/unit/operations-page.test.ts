import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import * as metrics from "../../lib/telemetry/metric-names.ts";

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

test("docs/11 names each metric", () => {
  const { CAPTURE_METRIC, TABLE_METRIC, BACKFILL_METRIC, REDRIVE_METRIC, CONSUMER_METRIC } = metrics;
  const names = [CAPTURE_METRIC, TABLE_METRIC, BACKFILL_METRIC, REDRIVE_METRIC, CONSUMER_METRIC]
    .flatMap((kind) => Object.values<metrics.MetricName>(kind))
    .map(({ name }) => name);
  const told = page("11-operations.md");
  expect(names.filter((name) => !told.includes(`\`${name}\``))).toEqual([]);
});
