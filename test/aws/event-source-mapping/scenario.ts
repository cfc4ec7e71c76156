import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  DescribeStreamSummaryCommand,
  type KinesisClient,
  ListShardsCommand,
  PutRecordsCommand,
} from "@aws-sdk/client-kinesis";
import { onTestFinished } from "vitest";
import {
  type EventSourceMapping,
  runEventSourceMapping,
} from "../../../lib/local/event-source-mapping/mapping.ts";
import type { EventSourceMappingOptions } from "../../../lib/local/event-source-mapping/options.ts";
import { type LambdaFunction, startLambdaFunction } from "../../../lib/local/lambda/host.ts";
import { eventually } from "../../eventually.ts";
import type { EmulatedAws } from "../emulated.ts";
import type { JournalEntry, Told } from "./handler.ts";

/** A stream, the journalling handler, and the mapping between them; everything ends with the test. */
export interface Scenario {
  readonly streamName: string;
  readonly fn: LambdaFunction;
  readonly directory: string;
  /** Puts records one after the other; `key` is the partition key. */
  put(...records: (Told & { key?: string; fill?: number })[]): Promise<void>;
  putRaw(...records: { key: string; data: Uint8Array }[]): Promise<void>;
  run(options?: Partial<EventSourceMappingOptions>): Promise<EventSourceMapping>;
  /** What the handler was invoked with, in order. */
  journal(): JournalEntry[];
  /** The record numbers of each invocation. */
  batches(): number[][];
  /** Waits until the handler was given each of the numbers at least once. */
  met(...numbers: number[]): Promise<void>;
  /** Lets handlers go on that wait for it. */
  release(): void;
  openShards(): Promise<{ id: string; from: bigint; to: bigint }[]>;
}

const HANDLER = fileURLToPath(new URL("./handler.ts", import.meta.url));

export async function scenario(
  aws: EmulatedAws,
  setup: {
    shards?: number;
    timeoutMs?: number;
    concurrency?: number;
    kinesis?: KinesisClient;
    keepEvents?: boolean;
  } = {},
): Promise<Scenario> {
  const directory = mkdtempSync(join(tmpdir(), "tributary-mapping-"));
  const streamName = await aws.freshStream(setup.shards);
  const fn = await startLambdaFunction({
    entry: HANDLER,
    name: "journal",
    timeoutMs: setup.timeoutMs ?? 60_000,
    concurrency: setup.concurrency ?? 4,
    environment: { JOURNAL_DIRECTORY: directory, ...(setup.keepEvents && { KEEP_EVENTS: "1" }) },
  });
  const mappings: EventSourceMapping[] = [];
  onTestFinished(async () => {
    await fn.stop();
    await Promise.all(mappings.map((mapping) => mapping.stop()));
    rmSync(directory, { recursive: true, force: true });
  });

  const read = () => {
    try {
      return readFileSync(join(directory, "journal"), "utf8");
    } catch {
      return "";
    }
  };
  const self: Scenario = {
    streamName,
    fn,
    directory,
    put: (...records) =>
      self.putRaw(
        ...records.map(({ key = "k", fill = 0, ...told }) => ({
          key,
          data: Buffer.from(JSON.stringify(fill > 0 ? { ...told, fill: "x".repeat(fill) } : told)),
        })),
      ),
    async putRaw(...records) {
      // Small requests: five megabytes are the most.
      for (let i = 0; i < records.length; i += 4) {
        const Records = records.slice(i, i + 4).map(({ key, data }) => ({ PartitionKey: key, Data: data }));
        const { FailedRecordCount } = await aws.kinesis.send(
          new PutRecordsCommand({ StreamName: streamName, Records }),
        );
        if (FailedRecordCount) throw new Error(`${FailedRecordCount} records were refused`);
      }
    },
    async run(options = {}) {
      const mapping = await runEventSourceMapping({
        kinesis: setup.kinesis ?? aws.kinesis,
        streamName,
        functionHost: fn,
        ...options,
      });
      mappings.push(mapping);
      return mapping;
    },
    journal: () =>
      read()
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line) as JournalEntry),
    batches: () => self.journal().map(({ numbers }) => numbers),
    met: async (...numbers) => {
      await eventually(() => isMet(self.batches().flat(), numbers), {
        what: `the handler to get ${numbers.length > 10 ? `${numbers.length} records` : numbers}`,
      });
    },
    release: () => writeFileSync(join(directory, "released"), ""),
    async openShards() {
      await eventually(
        async () => {
          const summary = await aws.kinesis.send(
            new DescribeStreamSummaryCommand({ StreamName: streamName }),
          );
          return summary.StreamDescriptionSummary?.StreamStatus === "ACTIVE";
        },
        { what: "the stream to be active" },
      );
      const { Shards = [] } = await aws.kinesis.send(new ListShardsCommand({ StreamName: streamName }));
      return Shards.filter((shard) => shard.SequenceNumberRange?.EndingSequenceNumber === undefined)
        .map((shard) => ({
          id: shard.ShardId ?? "",
          from: BigInt(shard.HashKeyRange?.StartingHashKey ?? 0),
          to: BigInt(shard.HashKeyRange?.EndingHashKey ?? 0),
        }))
        .sort((a, b) => (a.from < b.from ? -1 : 1));
    },
  };
  return self;
}

function isMet(met: readonly number[], expected: readonly number[]): boolean {
  const seen = new Set(met);
  return expected.every((n) => seen.has(n));
}
