import { expect, test } from "vitest";
import { positionOf } from "../../lib/change/record.ts";
import type { SourceMessage } from "../../lib/source/change-source.ts";
import { writeStream } from "../../lib/stream/stream-writer.ts";
import { change, sourceOf } from "../stream/changes.ts";
import { emulatedAws } from "./emulated.ts";
import { readStream } from "./stream-records.ts";

const aws = emulatedAws();
const log = { info: () => {}, warn: () => {} };
const orders = { name: "shop.public.orders", partitions: 8 };

function* transactions(count: number): Generator<SourceMessage[]> {
  for (let i = 1; i <= count; i++) {
    const lsn = BigInt(i * 16);
    yield [
      change(orders, i % 8, lsn, 1, `ä${i}`),
      change(orders, (i * 3) % 8, lsn, 2),
      { kind: "commit", endLsn: lsn + 8n, commitTimeMs: i },
    ];
  }
}

test("every change stands in the stream once, in order per partition, and the last commit is acknowledged", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream(2);
  const source = sourceOf(transactions(500));
  const options = { kinesis, streamName, writer: 3, packing: "batch", log } as const;
  await writeStream(source, options, new AbortController().signal);

  const offered = [...transactions(500)].flat().filter((message) => message.kind === "change");
  const stored = await readStream(kinesis, streamName);
  for (let partition = 0; partition < 8; partition++) {
    const records = stored.filter((r) => r.partitionKey === `shop.public.orders/${partition}`);
    const events = records.flatMap(({ record }) => (record.kind === "events" ? record.events : []));
    const expected = offered.filter((c) => c.partition === partition).map((c) => c.position);
    expect(events.map(positionOf)).toEqual(expected);
    expect(events.map((event) => event.source.after)).toEqual([null, ...expected.slice(0, -1)]);
    expect(records.every(({ record }) => record.writer === 3 && record.partition === partition)).toBe(true);
  }
  expect(source.acknowledged.at(-1)).toBe(500n * 16n + 8n);
});
