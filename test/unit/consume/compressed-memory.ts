import { gzipSync } from "node:zlib";
import { COMPRESSED_TAIL, compressedHead } from "../../../lib/change/record.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, eventJson, invocationOf, kinesisRecord, TOPIC } from "./records.ts";

/*
 * A program for compressed-records.test.ts, run with a small heap: one invocation of 40 records in as many partitions, each of
 * 4 MiB when it is decompressed. Prints how many events took effect.
 */

const EVENTS = 1_000;
const PARTITIONS = 40;

const texts = Array.from({ length: EVENTS }, (_, i) =>
  eventJson({
    at: i + 1,
    after: i || null,
    row: { id: String(i), text: `status-${i % 7} `.repeat(410) },
  }),
);
const compressed = gzipSync(`[${texts.join(",")}]`).toString("base64");
const range = { first: at(1), last: at(EVENTS), after: null };
const records = Array.from({ length: PARTITIONS }, (_, partition) =>
  kinesisRecord(
    compressedHead({ topic: TOPIC, partition, writer: 1 }, range) + compressed + COMPRESSED_TAIL,
    `${TOPIC}/${partition}`,
  ),
);
const seen = { events: 0 };
const { handler, letters } = await memoryConsumer((c) => {
  const count = (events: number) => {
    seen.events += events;
  };
  c.onBatch("*", { operations: Operation.Create, maxEvents: 10_000 }, async (events) => {
    await new Promise(setImmediate);
    // One of them is parked: its text is asked for, too.
    const bad = events.findIndex(({ row }) => row.id === "17");
    if (bad >= 0 && events.length > 1) throw new Error("find it");
    if (bad >= 0) throw new Error("poison");
    count(events.length);
  });
});
const { batchItemFailures } = await handler(invocationOf(...records), timeLeft(600_000));
process.stdout.write(JSON.stringify({ events: seen.events, letters: letters.length, batchItemFailures }));
