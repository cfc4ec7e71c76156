import type { KinesisClient } from "@aws-sdk/client-kinesis";
import { expect, test } from "vitest";
import { ConfigurationError } from "../../../../lib/change/tributary-error.ts";
import {
  type EventSourceMappingOptions,
  validated,
} from "../../../../lib/local/event-source-mapping/options.ts";

const right: EventSourceMappingOptions = {
  kinesis: {} as KinesisClient,
  streamName: "shop",
  functionHost: { name: "orders", arn: "arn", invoke: () => Promise.reject(new Error("not called")) },
  startingPosition: "TRIM_HORIZON",
};

test("defaults are those of AWS", () => {
  expect(validated(right).settings).toEqual({
    streamName: "shop",
    startingPosition: "TRIM_HORIZON",
    batchSize: 100,
    maximumBatchingWindowSeconds: 0,
    parallelizationFactor: 1,
    reportBatchItemFailures: false,
  });
});

const wrong: readonly Partial<Record<keyof EventSourceMappingOptions, unknown>>[] = [
  { streamName: "" },
  { startingPosition: "AT_TIMESTAMP" },
  { batchSize: 0 },
  { batchSize: 10_001 },
  { batchSize: 1.5 },
  { maximumBatchingWindowSeconds: 301 },
  { parallelizationFactor: 0 },
  { parallelizationFactor: 11 },
  { filters: [{ data: { a: "x" } }] },
];
test.each(wrong)("refused, naming the field: %j", (fields) => {
  const options = { ...right, ...fields } as EventSourceMappingOptions;
  const [field = ""] = Object.keys(fields);
  const error = (() => {
    try {
      validated(options);
    } catch (thrown) {
      return thrown;
    }
  })();
  expect(error).toBeInstanceOf(ConfigurationError);
  expect((error as ConfigurationError).problems.map(({ path }) => path.split("[")[0])).toEqual([field]);
});
