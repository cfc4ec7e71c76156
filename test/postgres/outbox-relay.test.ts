import { randomUUID } from "node:crypto";
import type pg from "pg";
import { expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { parsePosition } from "../../lib/change/position.ts";
import { murmur3, partitionOf } from "../../lib/change/topic.ts";
import { outboxTableName } from "../../lib/definition/outbox-table.ts";
import { definePipeline, outbox } from "../../lib/definition/pipeline.ts";
import { routeTables } from "../../lib/definition/route.ts";
import { seededRandom } from "../../lib/local/shop/catalog.ts";
import { outboxTable } from "../../lib/publish/publish.ts";
import { dropOutboxSql, laneOf, relaySql } from "../../lib/publish/relay-sql.ts";
import { OutboxEnvelope } from "../../lib/source/outbox/event/envelope.ts";
import type { Lane } from "../../lib/source/outbox/lane.ts";
import { checkOutbox } from "../../lib/source/outbox/preflight.ts";
import { Relay, type RelayOptions } from "../../lib/source/outbox/relay.ts";
import { RelayDatabase } from "../../lib/source/outbox/relay-database.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { KeptLog, superuser } from "./source.ts";

const TABLE = 'public."Out ""box"';
const PARTITIONS = 64;
const LEASE_MS = 600;
const publisher = outboxTable({ table: TABLE });

/** A relay in this process whose stream is a list: what a lane gave, in order. */
class OpenRelay {
  readonly log = new KeptLog();
  readonly given: SourceChange[] = [];
  /** Set to false: Kinesis acknowledges nothing. */
  acknowledging = true;
  readonly lanes = new Set<Lane>();
  readonly #stop = new AbortController();
  readonly running: Promise<unknown>;

  constructor(url: string, generations: () => number, options: Partial<RelayOptions> = {}) {
    const pipeline = definePipeline({
      name: "shop",
      source: outbox({ table: TABLE }),
      topics: { partitions: PARTITIONS },
    });
    const { signal } = this.#stop;
    const relay = new Relay({
      intervalMs: 20,
      batchRows: 100,
      keepHours: 0,
      leaseMs: LEASE_MS,
      nextGeneration: async () => generations(),
      ...options,
      database: new RelayDatabase({
        connection: connectionFromUrl(url),
        table: TABLE,
        id: randomUUID(),
        signal,
      }),
      rows: {
        envelope: new OutboxEnvelope({
          pipeline,
          database: "shop",
          route: routeTables(pipeline),
          cloudEvents: undefined,
          now: () => 0,
        }),
        pipeline,
        database: "shop",
        epoch: 1,
        malformed: "stop",
        ...options.rows,
      },
      check: async () => {},
      write: (lane, until) => this.#write(lane, until),
      signal,
      log: this.log,
    });
    this.running = relay.run().catch((error) => error);
  }

  async #write(lane: Lane, until: AbortSignal): Promise<void> {
    this.lanes.add(lane);
    for await (const messages of lane.changes) {
      if (lane.lost.aborted || until.aborted) break;
      for (const message of messages) {
        if (message.kind === "change") this.given.push(message);
        if (message.kind === "commit" && this.acknowledging) lane.acknowledge(message.endPlace);
      }
    }
    this.lanes.delete(lane);
  }

  get types(): string[] {
    return this.given.map((change) => JSON.parse(`${change.json}}}`).after.type);
  }

  async stop(): Promise<unknown> {
    this.#stop.abort();
    return await this.running;
  }
}

eachPostgres("outbox relays", (server) => {
  async function start() {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await install(client);
    let generation = 0;
    const relay = (options: Partial<RelayOptions> = {}) => new OpenRelay(url, () => ++generation, options);
    const database = (signal = new AbortController().signal) =>
      new RelayDatabase({ connection: connectionFromUrl(url), table: TABLE, id: randomUUID(), signal });
    return { url, client, relay, database };
  }

  async function install(client: pg.Client): Promise<void> {
    for (const sql of relaySql(outboxTableName(TABLE), PARTITIONS)) await client.query(sql);
  }

  const publish = (client: pg.Client, aggregateId: string, type: string) =>
    publisher.publish(client, { aggregateType: "order", aggregateId, type, payload: { of: aggregateId } });
  const remaining = async (client: pg.Client) =>
    (await client.query(`SELECT type FROM ${'"Out ""box"'} ORDER BY seq`)).rows.map(({ type }) => type);

  test("the lane that the table computes is the lane of our partition, whatever the aggregate's name", async () => {
    const { client } = await start();
    const random = seededRandom(1);
    const alphabet = [..."abc0-9 %'\"\\", "ä", "€", "𝄞", "\u0001"];
    const names = Array.from({ length: 400 }, (_, i) =>
      Array.from({ length: i % 23 }, () => alphabet[Math.floor(random() * alphabet.length)]).join(""),
    );
    const { rows } = await client.query(
      `SELECT "Out ""box_murmur3"(name)::text AS hash FROM unnest($1::text[]) WITH ORDINALITY AS names (name, i) ORDER BY i`,
      [names],
    );
    expect(rows.map(({ hash }) => Number(hash))).toEqual(names.map(murmur3));
    // Again, and nothing is changed.
    await install(client);
    await publish(client, "ä-17", "Placed");
    const { rows: stored } = await client.query(`SELECT lane FROM "Out ""box"`);
    expect(stored).toEqual([{ lane: laneOf(partitionOf("ä-17", PARTITIONS), PARTITIONS) }]);
    for (const sql of dropOutboxSql(outboxTableName(TABLE))) await client.query(sql);
    for (const sql of dropOutboxSql(outboxTableName(TABLE))) await client.query(sql);
    await client.end();
  });

  test("rows are published in their order, acknowledged, and gone; what is rolled back is never seen", async () => {
    const { client, relay } = await start();
    const open = relay();
    await client.query("BEGIN");
    await publish(client, "17", "Never");
    await client.query("ROLLBACK");
    for (let i = 0; i < 250; i++) await publish(client, String(i % 7), `T${i}`);
    await eventually(async () => (await remaining(client)).length === 0, { what: "an empty outbox" });
    expect(open.given).toHaveLength(250);
    for (let aggregate = 0; aggregate < 7; aggregate++) {
      const own = open.given.filter(
        ({ partition }) => partition === partitionOf(String(aggregate), PARTITIONS),
      );
      const numbers = own.map(({ json }) => Number(JSON.parse(`${json}}}`).after.type.slice(1)));
      expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
      const positions = own.map(({ position }) => position);
      expect(positions).toEqual([...new Set(positions)].sort());
    }
    const first = open.given.find(({ json }) => json.includes('"aggregateId":"0"')) as SourceChange;
    expect(JSON.parse(`${first.json}}}`)).toMatchObject({
      op: "c",
      after: { aggregateType: "order", aggregateId: "0", payload: { of: "0" }, headers: {} },
      source: { schema: "outbox", table: "order", key: ["aggregateId"], mode: "outbox", epoch: 1 },
    });
    expect(parsePosition(first.position).commitLsn >> 32n).toBe(1n);
    expect(await open.stop()).toBeUndefined();
    await client.end();
  });

  test("the late commit: a reader by serial number never sees it, a relay does", async () => {
    const { url, client, relay } = await start();
    const late = await superuser(url);
    await late.query("BEGIN");
    await publish(late, "1", "Late");
    await publish(client, "2", "Early");
    const naive = async (after: string) =>
      (await client.query(`SELECT seq::text, type FROM "Out ""box" WHERE seq > $1 ORDER BY seq`, [after]))
        .rows;
    const seen = await naive("0");
    expect(seen.map(({ type }) => type)).toEqual(["Early"]);
    const open = relay({ keepHours: 1 });
    await eventually(() => open.types.length === 1, { what: "the early one" });
    await late.query("COMMIT");
    expect(await naive(seen.at(-1).seq)).toEqual([]);
    await eventually(() => open.types.length === 2, { what: "the late one" });
    expect(open.types).toEqual(["Early", "Late"]);
    await open.stop();
    await late.end();
    await client.end();
  });

  test("SKIP LOCKED alone lets a second reader overtake; lanes do not", async () => {
    const { url, client, relay, database } = await start();
    await publish(client, "17", "First");
    const slow = await superuser(url);
    await slow.query("BEGIN");
    const naive = `SELECT type FROM "Out ""box" ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED`;
    expect((await slow.query(naive)).rows).toEqual([{ type: "First" }]);
    await publish(client, "17", "Second");
    expect((await client.query(naive)).rows).toEqual([{ type: "Second" }]);
    await slow.query("ROLLBACK");

    // A relay that has the lane and does not come to an end; another one finds nothing to do.
    const stuck = relay({ leaseMs: 60_000 });
    stuck.acknowledging = false;
    await eventually(() => stuck.types.length === 2, { what: "the stuck relay" });
    const other = database();
    await other.beat(60_000);
    expect(await other.take(99, 16, 60_000)).toEqual([]);
    expect(await other.assign([...Array(16).keys()], 100)).toEqual(new Map());
    await other.leave();
    await other.disconnect();
    expect(stuck.types).toEqual(["First", "Second"]);
    await stuck.stop();
    await slow.end();
    await client.end();
  });

  test("dead between batch and publication: the next owner publishes the same events at the same positions, then the rest", async () => {
    const { client, relay, database } = await start();
    const zombie = database();
    await zombie.beat(LEASE_MS);
    const lanes = await zombie.take(7, 16, LEASE_MS);
    expect(lanes).toHaveLength(16);
    for (const type of ["A", "B"]) await publish(client, "17", type);
    const assigned = await zombie.assign(lanes, 100);
    expect(assigned.size).toBe(1);
    const [[lane, batch]] = [...assigned] as [[number, { number: bigint; seqs: string[] }]];
    expect(batch.number).toBe((7n << 32n) + 1n);
    await publish(client, "17", "C");
    // The rest waits behind the open batch.
    expect((await zombie.assign(lanes, 100)).size).toBe(0);

    let generation = 7;
    const heir = relay({ nextGeneration: async () => ++generation });
    await eventually(() => heir.types.length === 3, { what: "the heir" });
    expect(heir.types).toEqual(["A", "B", "C"]);
    expect(heir.given.map(({ position }) => parsePosition(position))).toEqual([
      { epoch: 1, commitLsn: batch.number, ordinal: 1 },
      { epoch: 1, commitLsn: batch.number, ordinal: 2 },
      { epoch: 1, commitLsn: (8n << 32n) + 1n, ordinal: 1 },
    ]);
    await eventually(async () => (await remaining(client)).length === 0, { what: "an empty outbox" });

    // The zombie wakes: it can neither remove nor assign.
    await publish(client, "17", "D");
    heir.acknowledging = false;
    await eventually(() => heir.types.length === 4, { what: "the fourth" });
    expect(await zombie.close(lane, 7, batch, false)).toBe(false);
    expect(await zombie.assign(lanes, 100)).toEqual(new Map());
    expect(await remaining(client)).toEqual(["D"]);
    await zombie.disconnect();
    await heir.stop();
    expect(await remaining(client)).toEqual(["D"]);
    await client.end();
  });

  test("a relay that lost its lanes can assign nothing; the owner can", async () => {
    const { client, database } = await start();
    const [zombie, owner] = [database(), database()];
    await zombie.beat(LEASE_MS);
    const lanes = await zombie.take(7, 16, LEASE_MS);
    const taken = () => owner.take(8, 16, LEASE_MS);
    await eventually(async () => (await taken()).length === 16, { what: "the end of the lease" });
    await publish(client, "17", "A");
    expect(await zombie.assign(lanes, 100)).toEqual(new Map());
    expect([...(await owner.assign(lanes, 100)).values()].map(({ number }) => number)).toEqual([
      (8n << 32n) + 1n,
    ]);
    await zombie.disconnect();
    await owner.disconnect();
    await client.end();
  });

  test("a dead relay's lanes are taken though its last beat lies in the future, as after a clock that was set back", async () => {
    const { client, relay, database } = await start();
    const dead = database();
    await dead.beat(LEASE_MS);
    expect(await dead.take(7, 16, LEASE_MS)).toHaveLength(16);
    await dead.disconnect();
    await client.query(`UPDATE "Out ""box_relay" SET seen_at = seen_at + interval '1 hour'`);
    let generation = 7;
    const heir = relay({ nextGeneration: async () => ++generation });
    await eventually(() => heir.lanes.size === 16, { what: "the lanes", deadlineMs: 20_000 });
    await heir.stop();
    await client.end();
  });

  test("a replay is the same though rows were deleted by hand, and says so", async () => {
    const { client, relay, database } = await start();
    const dead = database();
    await dead.beat(LEASE_MS);
    const lanes = await dead.take(1, 16, LEASE_MS);
    for (const type of ["A", "B", "C"]) await publish(client, "17", type);
    await dead.assign(lanes, 100);
    await client.query(`DELETE FROM "Out ""box" WHERE type = 'B'`);
    await dead.disconnect();
    let generation = 1;
    const heir = relay({ nextGeneration: async () => ++generation });
    await eventually(() => heir.types.length === 2, { what: "the rest" });
    expect(heir.given.map(({ position }) => parsePosition(position).ordinal)).toEqual([1, 3]);
    expect(heir.log.lines.join("\n")).toContain("deleted before they were published");
    await heir.stop();
    await client.end();
  });

  test("two relays share the lanes; each keeps its half, gives what it must, and inherits all", async () => {
    const { client, relay } = await start();
    const one = relay();
    await eventually(() => one.lanes.size === 16, { what: "one with all" });
    const two = relay();
    await eventually(() => one.lanes.size === 8 && two.lanes.size === 8, { what: "halves" });
    for (let i = 0; i < 100; i++) await publish(client, String(i), "T");
    await eventually(async () => (await remaining(client)).length === 0, { what: "an empty outbox" });
    expect([one.given.length > 0, two.given.length > 0]).toEqual([true, true]);
    expect(one.given.length + two.given.length).toBe(100);
    await two.stop();
    await eventually(() => one.lanes.size === 16, { what: "one with all again" });
    // The generation of a lane grows whenever it changes hands.
    expect(Math.max(...[...one.lanes].map(({ generation }) => generation))).toBe(3);
    await one.stop();
    const { rows } = await client.query(
      `SELECT count(*)::int AS owned FROM "Out ""box_lane" WHERE owner IS NOT NULL`,
    );
    expect(rows).toEqual([{ owned: 0 }]);
    await client.end();
  });

  test("kept rows are marked, never published again, and deleted in time", async () => {
    const { client, relay } = await start();
    await publish(client, "1", "Kept");
    const open = relay({ keepHours: 1 });
    const marked = async () =>
      (await client.query(`SELECT FROM "Out ""box" WHERE published_at IS NOT NULL`)).rowCount === 1;
    await eventually(marked, { what: "the mark" });
    await open.stop();
    await client.query(`UPDATE "Out ""box" SET published_at = published_at - interval '2 hours'`);
    const again = relay({ keepHours: 1 });
    await eventually(async () => (await remaining(client)).length === 0, { what: "the kept row to go" });
    expect(again.types).toEqual([]);
    await again.stop();
    await client.end();
  });

  test("kept rows that grow old faster than one statement removes them are removed all the same", async () => {
    const { client, relay } = await start();
    await client.query(
      `INSERT INTO "Out ""box" (aggregate_type, aggregate_id, type, payload, published_at)
       SELECT 'order', i::text, 'Old', '{}', now() - interval '2 hours' FROM generate_series(1, 12000) i`,
    );
    const [one, two] = [relay({ keepHours: 1 }), relay({ keepHours: 1 })];
    await eventually(async () => (await remaining(client)).length === 0, {
      what: "an empty outbox",
      deadlineMs: 30_000,
    });
    expect([...one.types, ...two.types]).toEqual([]);
    await one.stop();
    await two.stop();
    await client.end();
  });

  test("a lost session is opened anew, and nothing comes twice", async () => {
    const { client, relay } = await start();
    const open = relay();
    await eventually(() => open.lanes.size === 16, { what: "lanes" });
    for (let i = 0; i < 60; i++) {
      await publish(client, String(i % 5), `T${i}`);
      if (i % 20 === 10)
        await client.query(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()",
        );
    }
    const over = open.running.then((error) => expect(error).toBeUndefined());
    const empty = eventually(async () => (await remaining(client)).length === 0, { what: "an empty outbox" });
    await Promise.race([over, empty]);
    const positions = open.given.map(({ position, partition }) => `${partition} ${position}`);
    expect(new Set(positions).size).toBe(60);
    expect(open.log.lines.join("\n")).toContain("lost its session");
    expect(await open.stop()).toBeUndefined();
    await client.end();
  });

  test.each([
    ["an aggregate id of 512 emoji", "aggregate_id", "repeat('😀', 512)", { aggregateId: "😀".repeat(512) }],
    ["a type of 255 emoji", "type", "repeat('😀', 255)", { type: "😀".repeat(255) }],
    ["a time without end", "created_at", "'infinity'", { createdAt: "infinity" }],
    ["a time without begin", "created_at", "'-infinity'", { createdAt: "-infinity" }],
    ["BC", "created_at", "'0044-03-15 12:00:00+00 BC'", { createdAt: "0044-03-15T12:00:00.000000Z BC" }],
    [
      "the last year",
      "created_at",
      "'294276-12-31 23:59:59+00'",
      { createdAt: "294276-12-31T23:59:59.000000Z" },
    ],
    [
      "odd JSON",
      "payload",
      'E\'{\n"a": 1e400,\r\n"a": "\\\\u0000\\\\ud800"}\'',
      { payload: { a: "\u0000\ud800" } },
    ],
    ["headers of lines", "headers", "E'{\n\"a\":\t[null]\n}'", { headers: { a: [null] } }],
  ])("what the table's constraints take becomes an event: %s", async (_what, column, value, expected) => {
    const { client, relay } = await start();
    const columns = {
      aggregate_type: "'order'",
      aggregate_id: "'17'",
      type: "'Paid'",
      payload: "'{}'",
      [column]: value,
    };
    await client.query(
      `INSERT INTO "Out ""box" (${Object.keys(columns)}) VALUES (${Object.values(columns)});
       INSERT INTO "Out ""box" (aggregate_type, aggregate_id, type, payload) VALUES ('order', '18', 'Next', '{}')`,
    );
    const open = relay();
    let ended: unknown;
    void open.running.then((error) => {
      ended = error;
    });
    const both = () => {
      if (ended) throw ended;
      return open.given.length === 2;
    };
    await eventually(both, { what: () => `both events; ended with ${ended}`, deadlineMs: 20_000 });
    const events = open.given.map(({ json }) => JSON.parse(`${json}}}`));
    const odd = events.find(({ after }) => after.type !== "Next");
    expect(odd.after).toMatchObject(expected);
    expect(Number.isNaN(new Date(odd.source.ts_ms).getTime())).toBe(false);
    expect(await open.stop()).toBeUndefined();
    await client.end();
  });

  test("a row that is no event stops the relay, or goes whole to a topic of its own: a partition for each lane", async () => {
    const { client, relay } = await start();
    await client.query(`ALTER TABLE "Out ""box" DROP CONSTRAINT "Out ""box_type_check"`);
    await publish(client, "17", "Good");
    await client.query(
      `INSERT INTO "Out ""box" (aggregate_type, aggregate_id, type, payload) VALUES ('order', '17', '', '{"a":1}')`,
    );
    expect(await relay().running).toMatchObject({ code: "OUTBOX_ROW", retry: "stop" });
    const open = relay({ rows: { malformed: "quarantine" } as RelayOptions["rows"] });
    await eventually(() => open.given.length >= 2, { what: "both" });
    const [wrong] = open.given.filter(({ topic }) => topic.name === "shop.$outbox-malformed");
    expect(wrong).toMatchObject({
      topic: { partitions: 16 },
      partition: laneOf(partitionOf("17", PARTITIONS), PARTITIONS),
    });
    const { message } = JSON.parse(`${wrong?.json}}}`);
    expect(JSON.parse(Buffer.from(message.content, "base64").toString())).toMatchObject({
      payload: '{"a":1}',
    });
    await open.stop();
    await client.end();
  });

  test("a lane that is not the partition's stops the relay", async () => {
    const { client, relay } = await start();
    await client.query(
      `ALTER TABLE "Out ""box" DROP COLUMN lane; ALTER TABLE "Out ""box" ADD COLUMN lane smallint DEFAULT 3`,
    );
    await publish(client, "17", "Placed");
    expect(laneOf(partitionOf("17", PARTITIONS), PARTITIONS)).not.toBe(3);
    expect(await relay().running).toMatchObject({ code: "OUTBOX_LANE" });
    await client.end();
  });

  test("preflight names what is missing, and touches nothing", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    const check = (partitions = PARTITIONS) =>
      checkOutbox({
        connection: connectionFromUrl(url),
        pipeline: definePipeline({
          name: "shop",
          source: outbox({ table: TABLE }),
          topics: { partitions },
        }) as never,
      });
    await expect(check()).rejects.toThrow(/there is no table/);
    await client.query(`CREATE TABLE "Out ""box" (id uuid PRIMARY KEY)`);
    await expect(check()).rejects.toThrow(/has no aggregate_type/);
    await client.query(`DROP TABLE "Out ""box"`);
    await install(client);
    expect(await check()).toBe(new URL(url).pathname.slice(1));
    await expect(check(32)).rejects.toThrow(/made for 64 partitions/);
    await client.query(`DELETE FROM "Out ""box_lane" WHERE lane = 3`);
    await expect(check()).rejects.toThrow(/15 lanes/);
    await client.end();
  });
});
