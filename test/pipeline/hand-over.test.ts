import { PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { afterEach, expect, test } from "vitest";
import { Operation } from "../../lib/consume/api/operation.ts";
import { AwsFaultProxy } from "../../lib/testing/fault/aws-proxy.ts";
import { entriesOf, type WireEntry } from "../../lib/testing/fault/put-records.ts";
import { DONE, invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** Without what a writer stored again. */
function withoutCopies<Row extends { readonly id: number; readonly writer: number }>(
  rows: readonly Row[],
): Row[] {
  return [...new Map(rows.map((row) => [`${row.writer} ${row.id}`, row])).values()];
}

/** What a consumer does with all that stands in the stream. */
async function consume(bench: CaptureBench): Promise<number[]> {
  const ids: number[] = [];
  const handler = bench.consumer.instance((consumer) =>
    consumer.on("public.orders", Operation.Create, (event) => void ids.push(Number(event.after.id))),
  );
  expect(await invoke(handler, await bench.records())).toEqual(DONE);
  return ids;
}

withPostgres((server) => {
  async function bench(): Promise<CaptureBench> {
    const made = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => made.end());
    return made;
  }

  test("rolling deploy: the new task waits, takes over when the old one ends, and nothing comes twice", async () => {
    const b = await bench();
    // So long a lease passes on by being given back alone.
    const lease = { TRIBUTARY_LEASE_MS: "600000" };
    const old = b.capture(lease);
    await old.printed("streaming from slot");
    await b.insert(1, 20);
    await b.reached(20);
    const walsender = await b.walsender();

    const next = b.capture(lease);
    await next.printed("waiting for the capture lease");
    let last = 20;
    let writing = true;
    const writer = (async () => {
      while (writing) {
        await b.insert(last + 1, last + 1);
        last++;
      }
    })();
    await b.reached(60);
    expect(await b.walsender()).toBe(walsender);

    old.signal("SIGTERM");
    expect(await old.ended).toBe(0);
    await next.printed("streaming from slot");
    await b.reached(last + 20);
    writing = false;
    await writer;
    await b.reached(last);
    next.signal("SIGTERM");
    expect(await next.ended).toBe(0);

    // The old one has stored and confirmed all that it had read. Once, but where Kinesis' answer was lost and a request sent again.
    const again = [old, next].some(({ lines }) => lines.some((line) => line.includes("retrying")));
    const written = again ? withoutCopies(await b.written()) : await b.written();
    expect(written.map(({ id }) => id)).toEqual(range(1, last));
    expect(new Set(written.map((row) => row.writer))).toEqual(new Set([1, 2]));
    expect(await consume(b)).toEqual(range(1, last));
    expect(next.lines.filter((line) => line.includes("waiting")).length).toBeLessThan(10);
  });

  test("zombie: frozen beyond its lease it is replaced, what it still writes is dropped, and it ends when it wakes", async () => {
    const b = await bench();
    const held: WireEntry[] = [];
    let holding = false;
    const proxy = await AwsFaultProxy.start({
      target: b.environment.AWS_ENDPOINT_URL_KINESIS as string,
      choose: (call) => {
        if (!holding) return undefined;
        held.push(...entriesOf(call));
        return { kind: "hang" };
      },
    });
    cleanups.push(() => proxy.stop());
    const lease = { TRIBUTARY_LEASE_MS: "2000" };
    const zombie = b.capture({ ...lease, AWS_ENDPOINT_URL_KINESIS: proxy.endpoint });
    await zombie.printed("streaming from slot");
    await b.insert(1, 10);
    await b.reached(10);

    // What it sends from here on is under way for a long time.
    holding = true;
    await b.insert(11, 20);
    await eventually(() => held.length > 0, { what: "a request of the zombie" });
    zombie.signal("SIGSTOP");

    const next = b.capture(lease);
    await next.printed("took the capture lease");
    // Its walsender holds the slot until wal_sender_timeout, 20 s.
    await next.printed("streaming from slot");
    await b.reached(20, 2);
    await b.insert(21, 30);
    await b.reached(30, 2);

    // Now its request arrives, behind the successor's; and then it wakes and tries again.
    await aws().kinesis.send(
      new PutRecordsCommand({
        StreamName: b.environment.TRIBUTARY_STREAM,
        Records: held.map(({ Data, ...entry }) => ({ ...entry, Data: Buffer.from(Data, "base64") })),
      }),
    );
    holding = false;
    zombie.signal("SIGCONT");
    expect(await zombie.ended).toBe(1);
    expect(zombie.lines.join("\n")).toContain('"code":"CAPTURE_LEASE_LOST"');

    await b.insert(31, 40);
    await b.reached(40, 2);
    next.signal("SIGTERM");
    expect(await next.ended).toBe(0);
    expect((await b.written()).filter(({ id, writer }) => writer === 1 && id > 10)).not.toEqual([]);
    expect(await consume(b)).toEqual(range(1, 40));
    expect(b.consumer.reports[0]?.staleWriter).toBeGreaterThan(0);
    expect(b.consumer.reports[0]?.gaps).toBe(0);
  });
});
