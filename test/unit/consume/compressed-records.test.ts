import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { COMPRESSED_TAIL, compressedHead, MAX_UNCOMPRESSED_BYTES } from "../../../lib/change/record.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, type Change, chain, eventJson, invocationOf, kinesisRecord, packed, TOPIC } from "./records.ts";

const HEADER = { topic: TOPIC, partition: 0, writer: 1 };

/** A compressed record of changes; `events` stands for what it holds. */
function compressed(changes: readonly Change[], events = gzipSync(arrayOf(changes)), header = true) {
  const [first, last] = [changes[0] as Change, changes.at(-1) as Change];
  const after = typeof first.after === "number" ? at(first.after) : null;
  const range = header ? { first: at(first.at), last: at(last.at), after } : undefined;
  return kinesisRecord(compressedHead(HEADER, range) + events.toString("base64") + COMPRESSED_TAIL);
}

function arrayOf(changes: readonly Change[]): string {
  return `[${changes.map(eventJson).join(",")}]`;
}

async function batches() {
  const calls: string[][] = [];
  const made = await memoryConsumer((c) =>
    c.onBatch("*", { operations: Operation.Create, maxEvents: 10_000 }, (events) => {
      calls.push(events.map(({ row }) => String(row.id)));
    }),
  );
  return { ...made, calls };
}

describe("compressed records", () => {
  it("take the memory of a few at a time, however many there are", async () => {
    const program = join(import.meta.dirname, "compressed-memory.ts");
    const child = spawn(process.execPath, ["--max-old-space-size=150", "--max-semi-space-size=8", program], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NODE_OPTIONS: "" },
    });
    let [out, error] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (out += chunk));
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (error += chunk));
    const [code] = (await once(child, "close")) as [number | null];
    expect({ code, error: code === 0 ? "" : error.slice(0, 500) }).toEqual({ code: 0, error: "" });
    expect(JSON.parse(out)).toEqual({ events: 40 * 999, letters: 40, batchItemFailures: [] });
  }, 120_000);

  it("come to a call together where they are small", async () => {
    const { handler, calls } = await batches();
    await handler(
      invocationOf(compressed(chain(1, 2)), compressed(chain(3, 4)), packed(chain(5, 5))),
      timeLeft(),
    );
    expect(calls).toEqual([["1", "2", "3", "4", "5"]]);
  });

  it("are read with and without a header that tells what they hold", async () => {
    const { handler, calls } = await batches();
    const one = compressed(chain(1, 2), undefined, false);
    await handler(invocationOf(one, compressed(chain(3, 3))), timeLeft());
    expect(calls).toEqual([["1", "2", "3"]]);
  });

  const [four] = chain(4, 4) as [Change];
  const large = { ...four, row: { id: "4", text: "x".repeat(MAX_UNCOMPRESSED_BYTES) } };
  const two = gzipSync(arrayOf(chain(2, 3)));
  const cases: [string, Buffer<ArrayBuffer>][] = [
    ["above 4 MiB", gzipSync(arrayOf([...chain(2, 3), large]))],
    ["of 64 MiB of zeros", gzipSync(Buffer.alloc(2 ** 26))],
    ["cut off", two.subarray(0, -9)],
    ["no gzip", Buffer.from("no gzip at all")],
    ["empty", Buffer.alloc(0)],
    ["of two members", Buffer.concat([two, gzipSync(" ".repeat(1000))])],
    ["with another size at its end", Buffer.concat([two.subarray(0, -4), Buffer.from([1, 0, 0, 0])])],
    ["of other events than its header names", gzipSync(arrayOf(chain(2, 2)))],
    ["of no event", gzipSync("[]")],
  ];
  it.each(cases)("%s: to the dead letters whole, and what follows goes on", async (_what, events) => {
    const { handler, calls, letters, lines } = await batches();
    const bad = compressed(chain(2, 3), events);
    const answer = await handler(invocationOf(packed(chain(1, 1)), bad, packed([four])), timeLeft());
    expect({ answer, calls: calls.flat() }).toEqual({ answer: { batchItemFailures: [] }, calls: ["1", "4"] });
    const [letter] = letters.map((text) => JSON.parse(text) as Record<string, unknown>);
    expect(letter).toMatchObject({
      ...{ consumer: "c", topic: TOPIC, partition: 0, first: at(2), last: at(3) },
      ...{ sequenceNumber: bad.kinesis.sequenceNumber, record: bad.kinesis.data },
      error: { name: "RecordFormatError" },
    });
    expect(JSON.stringify(lines)).toContain("RECORD_FORMAT");
  });
});
