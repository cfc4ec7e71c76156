import { describe, expect, it } from "vitest";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { chain, invocationOf, kinesisRecord, packed, recordJson, TOPIC } from "./records.ts";

async function counting() {
  const done: string[] = [];
  const made = await memoryConsumer((c) =>
    c.on("*", Operation.Create, (event) => void done.push(String(event.row.id))),
  );
  return { ...made, done };
}

describe("a record that cannot be read", () => {
  it("and is larger than a message goes to the dead letters all the same, whole", async () => {
    const { handler, letters, done, table } = await counting();
    const data = Buffer.from(Array.from({ length: 1_000_000 }, (_, i) => (i * 7919) % 251));
    const foreign = kinesisRecord(data, "foreign");
    const answer = await handler(invocationOf(foreign, packed(chain(1, 2))), timeLeft());
    expect({ answer, done }).toEqual({ answer: { batchItemFailures: [] }, done: ["1", "2"] });
    const [letter] = letters.map((text) => JSON.parse(text));
    expect(letter).toMatchObject({
      consumer: "c",
      partitionKey: "foreign",
      error: { name: "RecordFormatError" },
    });
    const { pk, sk, pieces } = letter.recordItems as { pk: string; sk: string; pieces: number };
    const items = table.items(sk);
    expect(items.map((item) => [item.pk?.S, item.sk?.S])).toEqual(
      Array.from({ length: pieces }, (_, i) => [pk, `${sk}${i + 1}`]),
    );
    expect(Buffer.concat(items.map((item) => item.data?.B as Uint8Array)).equals(data)).toBe(true);
    for (const { data: piece, expiresAt } of items) {
      expect(piece?.B?.length).toBeLessThanOrEqual(350 * 1024);
      expect(Number(expiresAt?.N)).toBeGreaterThan(Date.now() / 1000 + 13 * 24 * 3600);
    }
  });

  it.each([
    ["of a newer version", (json: string) => json.replace('"v":1', '"v":2')],
    ["of a newer encoding", (json: string) => json.replace('"events":[', '"encoding":"zstd","events":[')],
  ])("%s is held, and nothing behind it is passed", async (_what, newer) => {
    const { handler, letters, done, lines, reports } = await counting();
    const record = kinesisRecord(newer(recordJson(chain(1, 1))));
    const answer = await handler(invocationOf(record, packed(chain(2, 2))), timeLeft());
    expect(answer.batchItemFailures).toEqual([]);
    expect(reports).toMatchObject([{ heldPartitions: 1, failedPartitions: 0 }]);
    expect({ letters, done }).toEqual({ letters: [], done: [] });
    expect(lines).toContainEqual(
      expect.objectContaining({
        ...{ consumer: "c", code: "RECORD_NOT_SUPPORTED", partitionKey: `${TOPIC}/0` },
        sequenceNumber: record.kinesis.sequenceNumber,
      }),
    );
  });

  it("is named by consumer, partition key, shard and sequence number, in its letter and in the log", async () => {
    const { handler, letters, lines } = await counting();
    const record = kinesisRecord(recordJson(chain(1, 1)).slice(0, -30));
    const { partitionKey, sequenceNumber } = record.kinesis;
    await handler(invocationOf(record), timeLeft());
    const [letter] = letters.map((text) => JSON.parse(text));
    expect(letter).toMatchObject({
      consumer: "c",
      partitionKey,
      sequenceNumber,
      record: record.kinesis.data,
    });
    expect(letter.error.message).toContain(
      `(${partitionKey}, shardId-000000000000, sequence number ${sequenceNumber})`,
    );
    expect(lines).toContainEqual(
      expect.objectContaining({ consumer: "c", code: "RECORD_FORMAT", partitionKey, sequenceNumber }),
    );
  });
});
