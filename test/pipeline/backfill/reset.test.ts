import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { KinesisStreamRecord } from "aws-lambda";
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import { consumerStatus, needsAttention } from "../../../lib/admin/consumer-status.ts";
import { invoke } from "../../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../../aws/emulated.ts";
import { eventually } from "../../eventually.ts";
import { freshDatabase, withPostgres } from "../../postgres/server.ts";
import { CaptureBench } from "../capture-bench.ts";
import { HELD_SCHEMA, holdOrders } from "./orders-held.ts";

const aws = emulatedAws();
const ENTRY = fileURLToPath(new URL("./orders-held.ts", import.meta.url));
const ROWS = 2_000;
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  /** A table of 2,000 rows, whose consumer keeps them in a database of its own. */
  async function bench() {
    const b = await CaptureBench.create(aws(), await freshDatabase(server()), {
      partitions: 4,
      source: { snapshot: "when-needed" },
      entry: ENTRY,
      // Operators who take partitions from invocations wait for so long, and 10 s.
      timeoutSeconds: 1,
    });
    cleanups.push(() => b.end());
    const sink = new pg.Pool({ connectionString: await freshDatabase(server()) });
    cleanups.push(() => sink.end());
    await sink.query(HELD_SCHEMA);
    await b.client.query(`INSERT INTO orders SELECT i, 'x' FROM generate_series(1, ${ROWS}) i`);
    const handler = b.consumer.instance((consumer) => holdOrders(consumer, sink), {
      TRIBUTARY_ATTEMPTS: "1",
    });
    const { signal } = new AbortController();
    const place = {
      ...{ dynamodb: aws().dynamodb, table: b.consumer.table },
      pipeline: "shop",
      consumer: b.consumer.name,
    };
    const rows = async (of: pg.Client | pg.Pool, select: string) =>
      (await of.query<{ id: string; note: string }>(select)).rows.map(({ id, note }) => `${id} ${note}`);
    /** Records that nobody will ever read. */
    const lost = new Set<string>();
    const numbers = new Map<string, string>();
    /** Each has the same sequence number whenever it is read. */
    const records = async () =>
      (await b.records()).flatMap((record) => {
        const { data } = record.kinesis;
        if (!numbers.has(data)) numbers.set(data, String(1_000_000_000 + numbers.size));
        const sequenceNumber = numbers.get(data) as string;
        const eventID = `shardId-000000000000:${sequenceNumber}`;
        return lost.has(data) ? [] : [{ ...record, eventID, kinesis: { ...record.kinesis, sequenceNumber } }];
      });
    return {
      ...{ b, sink, handler, lost, records },
      /** As an event source mapping: from the first that is not done. */
      async consume() {
        const { batchItemFailures } = await invoke(handler, await records());
        return batchItemFailures.length;
      },
      source: () => rows(b.client, "SELECT id, note FROM orders ORDER BY id::text"),
      held: () => rows(sink, "SELECT id, note FROM held WHERE NOT deleted ORDER BY id"),
      attention: async () => (await consumerStatus(place, signal)).filter(needsAttention),
      reset: (environment: Record<string, string>, ...args: string[]) =>
        b.run(environment, "consumer", "reset", "--consumer", b.consumer.name, ...args),
    };
  }
  type Bench = Awaited<ReturnType<typeof bench>>;

  /** Changes, new rows and deletes until they are stopped. Row 7 is left alone. */
  function write({ b }: Bench): () => Promise<void> {
    let stopped = false;
    const writing = (async () => {
      for (let n = 0; !stopped; n++) {
        const id = 10 + ((n * 37) % (ROWS - 10));
        await b.client.query("UPDATE orders SET note = $1 WHERE id = $2", [`changed ${n}`, id]);
        await b.client.query("DELETE FROM orders WHERE id = $1", [10 + ((n * 91) % (ROWS - 10))]);
        await b.client.query("INSERT INTO orders VALUES ($1, 'new')", [ROWS + 1 + n]);
        if (n % 5 === 0) await b.client.query("UPDATE orders SET id = -id WHERE id = $1", [id]);
        await delay(2);
      }
    })();
    return async () => {
      stopped = true;
      await writing;
    };
  }

  const recordOf = (records: readonly KinesisStreamRecord[], note: string) =>
    records.find(({ kinesis }) => Buffer.from(kinesis.data, "base64").toString().includes(`"${note}"`));

  test("after a rebuilt sink: parked, held and lost changes, an operator who dies twice, and all rows are right", async () => {
    const here = await bench();
    const { b, sink, lost, records, consume, attention, reset } = here;
    const capture = b.capture();
    await b.reached(ROWS);
    await eventually(async () => (await consume()) === 0 && (await here.held()).length === ROWS, {
      what: "the first load",
    });

    // A key whose change fails, with another behind it; and a record that is gone, in a partition that is held for it.
    await b.client.query("UPDATE orders SET note = 'poison' WHERE id = 7");
    await b.client.query("UPDATE orders SET note = 'corrected' WHERE id = 7");
    await eventually(
      async () => (await consume()) === 0 && (await attention()).some(({ parked }) => parked === 2),
      {
        what: "a parked key",
      },
    );
    await b.client.query("UPDATE orders SET note = 'lost' WHERE id = 8");
    const gone = await eventually(async () => recordOf(await b.records(), "lost"), {
      what: "the record to lose",
    });
    lost.add(gone.kinesis.data);
    await b.client.query("UPDATE orders SET note = 'behind the gap' WHERE id = 8");
    await eventually(async () => recordOf(await records(), "behind the gap"), {
      what: "a change behind the gap",
    });
    await consume();
    const broken = await attention();
    expect(
      broken.map(({ deadLetters, hold }) => deadLetters + (hold ? 1 : 0)).reduce((a, c) => a + c, 0),
    ).toBeGreaterThanOrEqual(2);
    expect(broken.some(({ gap }) => gap)).toBe(true);

    const plan = reset({});
    expect(await plan.ended).toBe(2);
    const told = plan.lines.join("\n");
    expect(told).toMatch(/begins anew in 4 partitions/);
    expect(told).toMatch(/public\.orders, about [\d,]+ rows, in shop\.public\.orders/);
    expect(told).toMatch(/1 keys with open dead letters \(\d changes parked\), 1 held partitions/);
    expect(told).toContain("Nothing was changed. To do it, repeat the command with: --confirm shop");
    expect(await attention()).toEqual(broken);

    const stopWriting = write(here);
    await sink.query("TRUNCATE held");
    let isConsuming = true;
    const consuming = (async () => {
      while (isConsuming) {
        await consume();
        await delay(20);
      }
    })();
    for (const where of ["reset-noted=kill@3", "reset-moved=kill"]) {
      const killed = reset({ TRIBUTARY_FAILPOINTS: where }, "--confirm", "shop");
      expect([await killed.ended, ...killed.lines]).toEqual(["SIGKILL", ...killed.lines]);
    }
    const whole = reset({}, "--confirm", "shop", "--by", "ada", "--timeout", "120");
    expect([await whole.ended, ...whole.lines]).toEqual([0, ...whole.lines]);
    expect(whole.lines.join("\n")).toMatch(/has not ended: this goes on with it/);
    expect(whole.lines.at(-1)).toContain("All rows are in the sink");
    await stopWriting();
    await b.client.query("INSERT INTO orders VALUES (1000000, 'last')");
    await b.reached(1_000_000);
    isConsuming = false;
    await consuming;
    expect(await consume()).toBe(0);
    expect(await here.held()).toEqual(await here.source());
    expect(await attention()).toEqual([]);
    const { rows: twice } = await sink.query("SELECT id FROM held GROUP BY id HAVING count(*) > 1");
    expect(twice).toEqual([]);
    // Everything once more changes nothing.
    await consume();
    expect(await here.held()).toEqual(await here.source());
    capture.signal("SIGTERM");
    expect(await capture.ended).toBe(0);
  });

  test("a sink that was not emptied is swept; without a capture task the wish stands, and says so", async () => {
    const here = await bench();
    const { b, sink, consume, reset, attention } = here;
    const first = b.capture();
    await b.reached(ROWS);
    await eventually(async () => (await consume()) === 0 && (await here.held()).length === ROWS, {
      what: "the first load",
    });
    first.signal("SIGTERM");
    await first.ended;
    await sink.query(
      "INSERT INTO held SELECT 'stray ' || id, 'stray', false, topic_partition, position FROM held LIMIT 5",
    );
    const asked = reset({ TRIBUTARY_LEASE_MS: "1000" }, "--confirm", "shop", "--json");
    expect([await asked.ended, ...asked.lines]).toEqual([1, ...asked.lines]);
    const steps = asked.lines.map((line) => JSON.parse(line));
    expect(steps.map(({ kind }) => kind)).toEqual(
      expect.arrayContaining(["plan", "partitions", "progress", "end"]),
    );
    expect(steps.at(-1)).toEqual({ kind: "end", consumer: b.consumer.name, outcome: "asked" });
    expect((await attention()).map(({ unhealed }) => unhealed.length)).toEqual([1, 1, 1, 1]);

    await b.capture().printed("streaming from slot");
    const shown = reset({}, "--confirm", "shop");
    await shown.printed("rows read");
    shown.signal("SIGINT");
    expect(await shown.ended).toBe(130);
    expect(shown.lines.join("\n")).toContain("what was asked for goes on");
    await eventually(async () => (await consume()) === 0 && (await attention()).length === 0, {
      what: "the rows",
    });
    expect(await here.held()).toEqual(await here.source());
  });
});
