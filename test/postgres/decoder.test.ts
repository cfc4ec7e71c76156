import { finished } from "node:stream/promises";
import { from as copyFrom } from "pg-copy-streams";
import { expect, test } from "vitest";
import type { SourceChange, SourceMessage } from "../../lib/change/change-stream.ts";
import { parsePosition } from "../../lib/change/position.ts";
import { EVERY_PARTITION, partitionOf } from "../../lib/change/topic.ts";
import { routeTables } from "../../lib/definition/route.ts";
import { eachPostgres } from "./server.ts";
import { anyPipeline, changesOf, decodeAll, decoderOver, eventOf, withSlot } from "./slot-reader.ts";

/** `op`, rows and what else of an event the tests look at. */
function brief(change: SourceChange) {
  const { op, before, after, unchanged, source } = eventOf(change);
  return {
    op,
    before,
    after,
    ...(unchanged && { unchanged }),
    ...(source.keyChange && { keyChange: source.keyChange }),
  };
}

const ordinals = (changes: readonly SourceChange[]) => changes.map((c) => parsePosition(c.position).ordinal);

eachPostgres("change decoder", (server) => {
  test("an event has every field of the envelope", () =>
    withSlot(
      server(),
      "CREATE TABLE public.orders (id int PRIMARY KEY, status text)",
      async (client, slot) => {
        await client.query("INSERT INTO public.orders VALUES (17, 'paid')");
        const messages = await slot.take();
        const out = await decodeAll(decoderOver(client, { now: () => 1795428930151, epoch: 3 }), messages);
        const change = out[0] as SourceChange;
        const { rows } = await client.query("SELECT $1::pg_lsn::text AS commit", [
          `${change.position.slice(8, 16)}/${change.position.slice(16, 24)}`,
        ]);
        expect(out.map((m) => m.kind)).toEqual(["change", "commit"]);
        expect(change.topic).toEqual({ name: "shop.public.orders", partitions: 64 });
        expect(change.partition).toBe(partitionOf("17", 64));
        expect(change.table).toBe("public.orders");
        const event = eventOf(change);
        expect(event).toEqual({
          op: "c",
          before: null,
          after: { id: 17, status: "paid" },
          ts_ms: 1795428930151,
          source: {
            connector: "postgresql",
            name: "shop",
            db: "shop",
            schema: "public",
            table: "orders",
            txId: expect.stringMatching(/^\d+$/),
            lsn: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/),
            commitLsn: rows[0].commit,
            ordinal: 1,
            epoch: 3,
            ts_ms: expect.any(Number),
            snapshot: "false",
            schemaVersion: expect.stringMatching(/^[0-9a-f]{8}$/),
            key: ["id"],
            after: null,
          },
        });
        expect(Math.abs(event.source.ts_ms - Date.now())).toBeLessThan(600_000);
        const commit = out[1] as Extract<SourceMessage, { kind: "commit" }>;
        expect(commit.commitTimeMs).toBe(event.source.ts_ms);
        expect(commit.endPlace).toBeGreaterThan(parsePosition(change.position).commitLsn);
      },
    ));

  test("replica identity default: keys in before for deletes and key changes only", () =>
    withSlot(
      server(),
      "CREATE TABLE t (a int, b int, v text, PRIMARY KEY (b, a))".replace(" t ", " public.t "),
      async (client, slot) => {
        await client.query(`INSERT INTO public.t VALUES (1, 2, 'x'); UPDATE public.t SET v = 'y';
        UPDATE public.t SET a = 3; DELETE FROM public.t`);
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        const keyChange = { from: { a: 1, b: 2 }, to: { a: 3, b: 2 } };
        expect(changes.map(brief)).toEqual([
          { op: "c", before: null, after: { a: 1, b: 2, v: "x" } },
          { op: "u", before: null, after: { a: 1, b: 2, v: "y" } },
          { op: "d", before: { a: 1, b: 2 }, after: null, keyChange },
          { op: "c", before: null, after: { a: 3, b: 2, v: "y" }, keyChange },
          { op: "d", before: { a: 3, b: 2 }, after: null },
        ]);
        expect(changes.map((c) => c.partition)).toEqual(
          ["1\u00002", "1\u00002", "1\u00002", "3\u00002", "3\u00002"].map((key) => partitionOf(key, 64)),
        );
        expect(ordinals(changes)).toEqual([1, 2, 4, 5, 6]);
        expect(eventOf(changes[0] as SourceChange).source.key).toEqual(["a", "b"]);
      },
    ));

  test("replica identity index: its columns, not the primary key's", () =>
    withSlot(
      server(),
      `CREATE TABLE public.t (id int PRIMARY KEY, code text NOT NULL, v text); CREATE UNIQUE INDEX u ON public.t (code);
       ALTER TABLE public.t REPLICA IDENTITY USING INDEX u`,
      async (client, slot) => {
        await client.query(
          "INSERT INTO public.t VALUES (1, 'a', 'x'); UPDATE public.t SET id = 2; DELETE FROM public.t",
        );
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        expect(changes.map(brief)).toEqual([
          { op: "c", before: null, after: { id: 1, code: "a", v: "x" } },
          { op: "u", before: null, after: { id: 2, code: "a", v: "x" } },
          { op: "d", before: { code: "a" }, after: null },
        ]);
        expect(new Set(changes.map((c) => c.partition))).toEqual(new Set([partitionOf("a", 64)]));
      },
    ));

  test("replica identity full: whole old rows, the key is the primary key, without one there is none", () =>
    withSlot(
      server(),
      `CREATE TABLE public.t (v text, id int PRIMARY KEY); ALTER TABLE public.t REPLICA IDENTITY FULL;
       CREATE TABLE public.bare (v text); ALTER TABLE public.bare REPLICA IDENTITY FULL`,
      async (client, slot) => {
        await client.query(`INSERT INTO public.t VALUES ('x', 1); UPDATE public.t SET v = NULL; UPDATE public.t SET id = 2;
          DELETE FROM public.t; INSERT INTO public.bare VALUES ('x'); UPDATE public.bare SET v = 'y'`);
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        const keyChange = { from: { id: 1 }, to: { id: 2 } };
        expect(changes.map(brief)).toEqual([
          { op: "c", before: null, after: { v: "x", id: 1 } },
          { op: "u", before: { v: "x", id: 1 }, after: { v: null, id: 1 } },
          { op: "d", before: { v: null, id: 1 }, after: null, keyChange },
          { op: "c", before: null, after: { v: null, id: 2 }, keyChange },
          { op: "d", before: { v: null, id: 2 }, after: null },
          { op: "c", before: null, after: { v: "x" } },
          { op: "u", before: { v: "x" }, after: { v: "y" } },
        ]);
        expect(changes.slice(-2).map((c) => c.partition)).toEqual([0, 0]);
        expect(changes.map((c) => eventOf(c).source.key)).toEqual([...Array(5).fill(["id"]), [], []]);
      },
    ));

  test("replica identity nothing: inserts are given, without a key", () =>
    withSlot(
      server(),
      "CREATE TABLE public.t (id int PRIMARY KEY); ALTER TABLE public.t REPLICA IDENTITY NOTHING",
      async (client, slot) => {
        await client.query("INSERT INTO public.t VALUES (7)");
        const [change] = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        expect(brief(change as SourceChange)).toEqual({ op: "c", before: null, after: { id: 7 } });
        expect(change?.partition).toBe(0);
      },
      "FOR ALL TABLES WITH (publish = 'insert')",
    ));

  test("the identity of a table may change in mid-stream, and columns may come and go", () =>
    withSlot(server(), "CREATE TABLE public.t (id int PRIMARY KEY, v text)", async (client, slot) => {
      await client.query("INSERT INTO public.t VALUES (1, 'x')");
      await client.query("ALTER TABLE public.t REPLICA IDENTITY FULL");
      await client.query("UPDATE public.t SET v = 'y'");
      await client.query("ALTER TABLE public.t DROP COLUMN v, ADD COLUMN w int DEFAULT 5");
      await client.query("UPDATE public.t SET w = 6");
      const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
      expect(changes.map(brief)).toEqual([
        { op: "c", before: null, after: { id: 1, v: "x" } },
        { op: "u", before: { id: 1, v: "x" }, after: { id: 1, v: "y" } },
        { op: "u", before: { id: 1, w: 5 }, after: { id: 1, w: 6 } },
      ]);
      const versions = changes.map((c) => eventOf(c).source.schemaVersion);
      expect(versions[1]).toBe(versions[0]);
      expect(versions[2]).not.toBe(versions[0]);
    }));

  test("unchanged TOAST is listed, or filled in from a whole old row; a placeholder's text is a text", () =>
    withSlot(
      server(),
      `CREATE TABLE public.t (id int PRIMARY KEY, big text, n int); CREATE TABLE public.f (LIKE public.t INCLUDING ALL);
       ALTER TABLE public.t ALTER big SET STORAGE EXTERNAL; ALTER TABLE public.f ALTER big SET STORAGE EXTERNAL;
       ALTER TABLE public.f REPLICA IDENTITY FULL`,
      async (client, slot) => {
        const big = "x".repeat(10_000);
        await client.query("INSERT INTO public.t VALUES (1, $1, 0)", [big]);
        await client.query("INSERT INTO public.f VALUES (1, $1, 0)", [big]);
        await slot.take();
        await client.query(`UPDATE public.t SET n = 1; UPDATE public.f SET n = 1; UPDATE public.t SET id = 2;
          UPDATE public.t SET big = '__debezium_unavailable_value'`);
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        const keyChange = { from: { id: 1 }, to: { id: 2 } };
        expect(changes.map(brief)).toEqual([
          { op: "u", before: null, after: { id: 1, n: 1 }, unchanged: ["big"] },
          { op: "u", before: { id: 1, big, n: 0 }, after: { id: 1, big, n: 1 } },
          { op: "d", before: { id: 1 }, after: null, keyChange },
          { op: "c", before: null, after: { id: 2, n: 1 }, unchanged: ["big"], keyChange },
          { op: "u", before: null, after: { id: 2, big: "__debezium_unavailable_value", n: 1 } },
        ]);
      },
    ));

  test("a partition that logs keys only, below a table with identity full: no value is made up", () =>
    withSlot(
      server(),
      `CREATE TABLE public.p (id int PRIMARY KEY, big text, n int) PARTITION BY RANGE (id);
       CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM (0) TO (10);
       ALTER TABLE public.p1 ALTER big SET STORAGE EXTERNAL; ALTER TABLE public.p REPLICA IDENTITY FULL`,
      async (client, slot) => {
        const big = "x".repeat(10_000);
        await client.query("INSERT INTO public.p VALUES (1, $1, 0)", [big]);
        await slot.take();
        await client.query("UPDATE public.p SET id = 2, n = 1; DELETE FROM public.p");
        const messages = await slot.take();
        const changes = changesOf(await decodeAll(decoderOver(client), messages));
        const keyChange = { from: { id: 1 }, to: { id: 2 } };
        const created = { op: "c", before: null, after: { id: 2, n: 1 }, unchanged: ["big"], keyChange };
        expect(changes.map(brief)).toEqual([
          { op: "d", before: { id: 1 }, after: null, keyChange },
          created,
          { op: "d", before: { id: 2 }, after: null },
        ]);
        // Corrected since, and the log still holds what was written before.
        await client.query("ALTER TABLE public.p1 REPLICA IDENTITY FULL");
        const later = changesOf(await decodeAll(decoderOver(client), messages));
        expect(brief(later[1] as SourceChange)).toEqual(created);
      },
      "FOR ALL TABLES WITH (publish_via_partition_root = true)",
    ));

  test("a toasted key that did not change comes from the old key", () =>
    withSlot(
      server(),
      `CREATE TABLE public.t (k text, id int, n int); ALTER TABLE public.t ALTER k SET STORAGE EXTERNAL;
       ALTER TABLE public.t ALTER k SET NOT NULL, ALTER id SET NOT NULL; ALTER TABLE public.t REPLICA IDENTITY FULL`,
      async (client, slot) => {
        const k = "k".repeat(5000);
        await client.query("INSERT INTO public.t VALUES ($1, 1, 0)", [k]);
        await client.query("UPDATE public.t SET n = 1");
        const pipeline = anyPipeline({ topics: { keys: { "public.t": ["k"] } } });
        const messages = await slot.take();
        const changes = changesOf(
          await decodeAll(decoderOver(client, { pipeline, route: routeTables(pipeline) }), messages),
        );
        expect(changes.map((c) => [eventOf(c).op, c.partition])).toEqual([
          ["c", partitionOf(k, 64)],
          ["u", partitionOf(k, 64)],
        ]);
      },
    ));

  test("a key is compared by value: 1.0 and 1.00 are one key, and so one partition", () =>
    withSlot(
      server(),
      `CREATE TABLE public.n (k numeric PRIMARY KEY); CREATE TABLE public.c (k char(5) PRIMARY KEY, v int);
       CREATE TABLE public.f (k float8 PRIMARY KEY); CREATE DOMAIN public.d AS numeric; CREATE TABLE public.dn (k public.d PRIMARY KEY)`,
      async (client, slot) => {
        await client.query(`INSERT INTO public.n VALUES (1.0); UPDATE public.n SET k = 1.00; UPDATE public.n SET k = 1.01;
          INSERT INTO public.c VALUES ('ab', 1); INSERT INTO public.f VALUES (0); UPDATE public.f SET k = '-0';
          INSERT INTO public.dn VALUES (10.50); UPDATE public.dn SET k = 10.500`);
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        const at = (key: string) => partitionOf(key, 64);
        expect(changes.map((c) => [c.table, eventOf(c).op, c.partition])).toEqual([
          ["public.n", "c", at("1")],
          ["public.n", "u", at("1")],
          ["public.n", "d", at("1")],
          ["public.n", "c", at("1.01")],
          ["public.c", "c", at("ab")],
          ["public.f", "c", at("0")],
          ["public.f", "u", at("0")],
          ["public.dn", "c", at("10.5")],
          ["public.dn", "u", at("10.5")],
        ]);
        expect(eventOf(changes[1] as SourceChange).before).toEqual({ k: "1.0" });
      },
    ));

  test("a chosen key column chooses the partition; its change is a key change", () =>
    withSlot(
      server(),
      `CREATE TABLE public.orders (id int PRIMARY KEY, customer_id int NOT NULL, v text);
       ALTER TABLE public.orders REPLICA IDENTITY FULL`,
      async (client, slot) => {
        await client.query(`INSERT INTO public.orders VALUES (1, 5, 'x'); UPDATE public.orders SET v = 'y';
          UPDATE public.orders SET customer_id = 6; DELETE FROM public.orders`);
        const pipeline = anyPipeline({ topics: { keys: { "public.orders": ["customer_id"] } } });
        const decoder = decoderOver(client, { pipeline, route: routeTables(pipeline) });
        const changes = changesOf(await decodeAll(decoder, await slot.take()));
        const keyChange = { from: { id: 1, customer_id: 5 }, to: { id: 1, customer_id: 6 } };
        expect(changes.map((c) => [eventOf(c).op, c.partition, eventOf(c).source.keyChange])).toEqual([
          ["c", partitionOf("5", 64), undefined],
          ["u", partitionOf("5", 64), undefined],
          ["d", partitionOf("5", 64), keyChange],
          ["c", partitionOf("6", 64), keyChange],
          ["d", partitionOf("6", 64), undefined],
        ]);
        expect(eventOf(changes[0] as SourceChange).source.key).toEqual(["customer_id"]);
      },
    ));

  test("a key column outside the replica identity, missing, or null is refused by name (rule 4)", () =>
    withSlot(
      server(),
      `CREATE TABLE public.t (id int PRIMARY KEY, c int); CREATE TABLE public.f (id int PRIMARY KEY, c int);
       ALTER TABLE public.f REPLICA IDENTITY FULL`,
      async (client, slot) => {
        const failure = async (table: string, column: string) => {
          await client.query(
            `INSERT INTO ${table} VALUES (1, NULL) ON CONFLICT DO NOTHING; DELETE FROM ${table}`,
          );
          const pipeline = anyPipeline({ topics: { keys: { [table]: [column] } } });
          const decoder = decoderOver(client, { pipeline, route: routeTables(pipeline) });
          return decodeAll(decoder, await slot.take());
        };
        await expect(failure("public.t", "c")).rejects.toMatchObject({
          code: "KEY_COLUMN",
          message: "public.t: key column c is not part of the replica identity",
        });
        await expect(failure("public.t", "nope")).rejects.toMatchObject({
          code: "KEY_COLUMN",
          message: "public.t: key column nope is not among the columns that travel",
        });
        await expect(failure("public.f", "c")).rejects.toMatchObject({
          code: "KEY_VALUE_MISSING",
          message: expect.stringMatching(/^public\.f, column c, change at /),
        });
      },
    ));

  test("truncate: one event and one ordinal a table, to every partition, in its place", () =>
    withSlot(
      server(),
      `CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.b (id int PRIMARY KEY REFERENCES public.a);
       CREATE TABLE public.c (id int PRIMARY KEY)`,
      async (client, slot) => {
        await client.query(`BEGIN; INSERT INTO public.a VALUES (1); TRUNCATE public.a, public.c RESTART IDENTITY CASCADE;
          INSERT INTO public.a VALUES (1); COMMIT`);
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        expect(changes.map((c) => eventOf(c).op)).toEqual(["c", "t", "t", "t", "c"]);
        expect(
          changes
            .slice(1, 4)
            .map((c) => c.table)
            .toSorted(),
        ).toEqual(["public.a", "public.b", "public.c"]);
        expect(changes.slice(1, 4).map((c) => c.partition)).toEqual(Array(3).fill(EVERY_PARTITION));
        expect(brief(changes[1] as SourceChange)).toEqual({ op: "t", before: null, after: null });
        expect(ordinals(changes)).toEqual([1, 2, 3, 4, 5]);
      },
    ));

  test.each([true, false])(
    "partitioned tables, publish_via_partition_root = %s: captured by the root's name",
    (viaRoot) =>
      withSlot(
        server(),
        `CREATE TABLE public.m (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
       CREATE TABLE public.m_2026 PARTITION OF public.m FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (id);
       CREATE TABLE public.m_2026_1 PARTITION OF public.m_2026 FOR VALUES IN (1);
       CREATE TABLE public.m_2027 PARTITION OF public.m FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
       CREATE TABLE public.other (id int PRIMARY KEY)`,
        async (client, slot) => {
          await client.query(`INSERT INTO public.m VALUES (1, '2026-05-01'), (2, '2027-05-01'); INSERT INTO public.other VALUES (1);
          UPDATE public.m SET day = '2027-06-01' WHERE id = 1; TRUNCATE public.m`);
          const pipeline = anyPipeline({}, { tables: ["public.m"] });
          const decoder = decoderOver(client, { pipeline, route: routeTables(pipeline) });
          const given = changesOf(await decodeAll(decoder, await slot.take()));
          const rows = given.filter((c) => eventOf(c).op !== "t");
          expect(rows.map((c) => [c.table, eventOf(c).op])).toEqual(
            viaRoot
              ? [
                  ["public.m", "c"],
                  ["public.m", "c"],
                  ["public.m", "d"],
                  ["public.m", "c"],
                ]
              : [
                  ["public.m_2026_1", "c"],
                  ["public.m_2027", "c"],
                  ["public.m_2026_1", "d"],
                  ["public.m_2027", "c"],
                ],
          );
          const truncated = given.filter((c) => eventOf(c).op === "t").map((c) => c.table);
          expect(truncated.toSorted()).toEqual(viaRoot ? ["public.m"] : ["public.m_2026_1", "public.m_2027"]);
        },
        `FOR TABLE public.m, public.other WITH (publish_via_partition_root = ${viaRoot})`,
      ),
  );

  test("tables out of the definition are left out, and their changes count", () =>
    withSlot(
      server(),
      "CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.secret (id int PRIMARY KEY)",
      async (client, slot) => {
        await client.query(`BEGIN; INSERT INTO public.secret VALUES (1); INSERT INTO public.a VALUES (1);
          UPDATE public.secret SET id = 2; INSERT INTO public.a VALUES (2); COMMIT`);
        const messages = await slot.take();
        for (const source of [{ exclude: ["*.secret"] }, { tables: ["public.a"] }]) {
          const pipeline = anyPipeline({}, source);
          const decoder = decoderOver(client, { pipeline, route: routeTables(pipeline) });
          const changes = changesOf(await decodeAll(decoder, messages));
          expect(changes.map((c) => c.table)).toEqual(["public.a", "public.a"]);
          expect(ordinals(changes)).toEqual([2, 5]);
        }
      },
    ));

  test("a table with identity full that is gone: known from before, by choice, or refused", () =>
    withSlot(
      server(),
      "CREATE TABLE public.t (id int PRIMARY KEY, v int); ALTER TABLE public.t REPLICA IDENTITY FULL",
      async (client, slot) => {
        await client.query("INSERT INTO public.t VALUES (1, 1)");
        const messages = await slot.take();
        const witness = decoderOver(client);
        await decodeAll(witness, messages);
        await client.query("INSERT INTO public.t VALUES (2, 2)");
        await client.query("DROP TABLE public.t");
        const late = await slot.take();
        witness.reconnected();
        const remembered = changesOf(await decodeAll(witness, late));
        expect(remembered.map((c) => c.partition)).toEqual([partitionOf("2", 64)]);
        const pipeline = anyPipeline({ topics: { keys: { "public.t": ["id"] } } });
        const chosen = changesOf(
          await decodeAll(decoderOver(client, { pipeline, route: routeTables(pipeline) }), late),
        );
        expect(chosen.map((c) => c.partition)).toEqual([partitionOf("2", 64)]);
        await expect(decodeAll(decoderOver(client), late)).rejects.toMatchObject({ code: "KEY_UNKNOWN" });
      },
    ));

  test("stored generated columns travel where the publication says so (18)", async (context) => {
    if (server().major < 18) return context.skip("publish_generated_columns is new in 18");
    await withSlot(
      server(),
      "CREATE TABLE public.t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, thrice int GENERATED ALWAYS AS (id * 3) VIRTUAL)",
      async (client, slot) => {
        await client.query("INSERT INTO public.t VALUES (1)");
        const [change] = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        expect(eventOf(change as SourceChange).after).toEqual({ id: 1, twice: 2 });
      },
      "FOR ALL TABLES WITH (publish_generated_columns = stored)",
    );
  });

  test("column lists, row filters and generated columns that are not published", () =>
    withSlot(
      server(),
      "CREATE TABLE public.t (id int PRIMARY KEY, secret text, n int, twice int GENERATED ALWAYS AS (id * 2) STORED)",
      async (client, slot) => {
        await client.query(
          `INSERT INTO public.t VALUES (1, 's', 5), (2, 's', 50); UPDATE public.t SET id = 3 WHERE id = 1`,
        );
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        expect(changes.map((c) => [eventOf(c).op, eventOf(c).before, eventOf(c).after])).toEqual([
          ["c", null, { id: 1, n: 5 }],
          ["d", { id: 1 }, null],
          ["c", null, { id: 3, n: 5 }],
        ]);
      },
      "FOR TABLE public.t (id, n) WHERE (id <> 2)",
    ));

  test("odd identifiers survive: quotes, dots, unicode, __proto__, equal names in two schemas", () =>
    withSlot(
      server(),
      `CREATE SCHEMA "Ünï.x"; CREATE TABLE "Ünï.x"."a.""b" ("__proto__" int PRIMARY KEY, "constructor" text, "q""\\" text, " " int, "日本" int);
       CREATE TABLE public."a.""b" (id int PRIMARY KEY)`,
      async (client, slot) => {
        await client.query(
          `INSERT INTO "Ünï.x"."a.""b" VALUES (1, 'c', 'q', 2, 3); INSERT INTO public."a.""b" VALUES (9)`,
        );
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        const [odd, plain] = changes.map(eventOf);
        expect(Object.entries(odd?.after ?? {})).toEqual([
          ["__proto__", 1],
          ["constructor", "c"],
          ['q"\\', "q"],
          [" ", 2],
          ["日本", 3],
        ]);
        expect(odd?.source).toMatchObject({ schema: "Ünï.x", table: 'a."b', key: ["__proto__"] });
        expect(plain?.source).toMatchObject({ schema: "public", table: 'a."b' });
        expect(changes[0]?.table).toBe('"Ünï.x"."a.""b"');
        expect(changes[0]?.topic.name).not.toBe(changes[1]?.topic.name);
      },
    ));

  test("no columns, and 1,600", () =>
    withSlot(
      server(),
      `CREATE TABLE public.none (); ALTER TABLE public.none REPLICA IDENTITY FULL;
       CREATE TABLE public.many (${Array.from({ length: 1600 }, (_, i) => `c${i} smallint`).join()});
       ALTER TABLE public.many REPLICA IDENTITY FULL`,
      async (client, slot) => {
        await client.query(`INSERT INTO public.none DEFAULT VALUES; DELETE FROM public.none;
          INSERT INTO public.many (c0, c1599) VALUES (1, 2); UPDATE public.many SET c800 = 3`);
        const changes = changesOf(await decodeAll(decoderOver(client), await slot.take())).map(eventOf);
        expect(changes.map((e) => e.op).slice(0, 2)).toEqual(["c", "d"]);
        expect(changes[0]?.after).toEqual({});
        expect(changes[1]?.before).toEqual({});
        const update = changes.at(-1);
        expect(Object.keys(update?.after ?? {}).length).toBe(1600);
        expect(update?.after).toMatchObject({ c0: 1, c799: null, c800: 3, c1599: 2 });
        expect(update?.before).toMatchObject({ c800: null, c1599: 2 });
      },
    ));

  test("savepoints and rollbacks leave no trace; a COPY shares one LSN and not one position", () =>
    withSlot(server(), "CREATE TABLE public.t (id int PRIMARY KEY, v text)", async (client, slot) => {
      await client.query("BEGIN; INSERT INTO public.t VALUES (1); ROLLBACK");
      await client.query(`BEGIN; INSERT INTO public.t VALUES (2); SAVEPOINT s; INSERT INTO public.t VALUES (3);
        ROLLBACK TO s; INSERT INTO public.t VALUES (4); COMMIT`);
      const copy = client.query(copyFrom("COPY public.t FROM STDIN"));
      copy.end(Array.from({ length: 50 }, (_, i) => `${100 + i}\tx\n`).join(""));
      await finished(copy);
      const changes = changesOf(await decodeAll(decoderOver(client), await slot.take()));
      expect(changes.slice(0, 2).map((c) => eventOf(c).after?.id)).toEqual([2, 4]);
      const copied = changes.slice(2);
      expect(copied.length).toBe(50);
      expect(new Set(copied.map((c) => eventOf(c).source.lsn)).size).toBeLessThan(50);
      expect(ordinals(copied)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
      expect(changes.map((c) => c.position)).toEqual(changes.map((c) => c.position).toSorted());
    }));

  test("logical messages: by prefix, with places of their own; ours go to the hook only", () =>
    withSlot(server(), "CREATE TABLE public.t (id int PRIMARY KEY)", async (client, slot) => {
      await client.query(`SELECT pg_logical_emit_message(false, 'app', 'outside');
        BEGIN; SELECT pg_logical_emit_message(true, 'other', 'x'); INSERT INTO public.t VALUES (1);
        SELECT pg_logical_emit_message(true, 'app.x', '\\x00ff'::bytea); SELECT pg_logical_emit_message(true, 'app', '');
        SELECT pg_logical_emit_message(true, 'tributary.mark', 'm'); COMMIT`);
      await client.query("SELECT pg_logical_emit_message(false, 'tributary.heartbeat', 'h')");
      // A commit, so that the heartbeat is flushed to where the slot reads.
      await client.query("CREATE TABLE public.later ()");
      const pipeline = anyPipeline({}, { messages: ["app*", "tributary.*"] });
      const own: string[] = [];
      const decoder = decoderOver(client, {
        pipeline,
        onMessage: (m) => {
          own.push(`${m.prefix} ${m.content.toString()} ${m.transactional} ${decoder.inTransaction}`);
          return false;
        },
      });
      const messages = await slot.take();
      const out = await decodeAll(decoder, messages);
      // The batch is one implicit transaction, whose non-transactional message is told before all of it.
      expect(out.map((m) => m.kind)).toEqual([
        "change",
        "idle",
        "change",
        "change",
        "change",
        "commit",
        "idle",
      ]);
      const given = changesOf(out).filter((c) => eventOf(c).op === "m");
      expect(given.map((c) => [c.topic.name, c.partition, eventOf(c).message])).toEqual([
        ["shop.$messages", 0, { prefix: "app", content: "b3V0c2lkZQ==", transactional: false }],
        ["shop.$messages", 0, { prefix: "app.x", content: "AP8=", transactional: true }],
        ["shop.$messages", 0, { prefix: "app", content: "", transactional: true }],
      ]);
      expect(ordinals(given)).toEqual([1, 2, 3]);
      const row = changesOf(out).find((c) => c.table === "public.t");
      expect(ordinals([row as SourceChange])).toEqual([1]);
      expect(given.map((c) => c.position)).toEqual(given.map((c) => c.position).toSorted());
      expect(own).toEqual(["tributary.mark m true true", "tributary.heartbeat h false false"]);
      decoder.reconnected();
      const again = await decodeAll(decoder, messages);
      expect(again.map((m) => m.kind)).toEqual(["idle", "idle"]);
      // Nothing stands at a heartbeat, so nothing tells that it came before.
      expect(own.slice(2)).toEqual(["tributary.heartbeat h false false"]);
    }));

  test("a message outside transactions does not take the place of the commit right behind it", () =>
    withSlot(server(), "CREATE TABLE public.t (id int PRIMARY KEY)", async (client, slot) => {
      const sent: string[] = [];
      for (let i = 0; i < 20; i++) {
        const padding = "x".repeat(i);
        await client.query(`BEGIN; INSERT INTO public.t VALUES (${i});
          SELECT pg_logical_emit_message(true, 'app', 'inside ${i}');
          SELECT pg_logical_emit_message(false, 'app', 'outside ${i} ${padding}'); COMMIT`);
        sent.push(`inside ${i}`, `outside ${i} ${padding}`);
      }
      const pipeline = anyPipeline({}, { messages: ["app"] });
      const out = await decodeAll(decoderOver(client, { pipeline }), await slot.take());
      const given = changesOf(out).filter((c) => eventOf(c).op === "m");
      const contents = given.map((c) => Buffer.from(eventOf(c).message?.content ?? "", "base64").toString());
      expect(contents.toSorted()).toEqual(sent.toSorted());
      const positions = given.map((c) => c.position);
      expect(new Set(positions).size).toBe(40);
      expect(positions).toEqual(positions.toSorted());
    }));

  test("a stream that is cut at any message goes on behind the last change, with the same positions", () =>
    withSlot(
      server(),
      `CREATE TABLE public.t (id int PRIMARY KEY, v text); CREATE TABLE public.f (id int PRIMARY KEY, v text);
       ALTER TABLE public.f REPLICA IDENTITY FULL; CREATE TYPE public.e AS ENUM ('x'); CREATE TABLE public.g (id int PRIMARY KEY, e public.e[])`,
      async (client, slot) => {
        await client.query(`BEGIN; INSERT INTO public.t VALUES (1, 'a'), (2, 'b'); UPDATE public.t SET id = 3 WHERE id = 1;
          SELECT pg_logical_emit_message(true, 'app', '1'); INSERT INTO public.f VALUES (1, 'a'); UPDATE public.f SET id = id + 1; COMMIT`);
        await client.query("SELECT pg_logical_emit_message(false, 'app', '2')");
        await client.query(`BEGIN; TRUNCATE public.t, public.f; INSERT INTO public.g VALUES (1, '{x}');
          ALTER TABLE public.t ADD COLUMN w int; INSERT INTO public.t VALUES (9, 'z', 1); COMMIT`);
        const messages = await slot.take();
        const pipeline = anyPipeline({}, { messages: ["app"] });
        const options = { pipeline, now: () => 0 };
        const whole = (await decodeAll(decoderOver(client, options), messages)).filter(
          (m) => m.kind !== "idle",
        );
        expect(changesOf(whole).length).toBe(13);
        const text = (given: SourceMessage[]) =>
          given.filter((m) => m.kind !== "idle").map((m) => (m.kind === "change" ? m.position + m.json : m));
        for (let cut = 0; cut <= messages.length; cut++) {
          const decoder = decoderOver(client, options);
          const out = await decodeAll(decoder, messages.slice(0, cut));
          decoder.reconnected();
          out.push(...(await decodeAll(decoder, messages)));
          expect(text(out), `cut before message ${cut}`).toEqual(text(whole));
        }
        const rows = changesOf(whole).filter((c) => c.table !== "$messages");
        for (const [i, row] of rows.entries()) {
          const decoder = decoderOver(client, { ...options, resumeAfter: row.position });
          const rest = changesOf(await decodeAll(decoder, messages)).filter((c) => c.table !== "$messages");
          expect(text(rest), `resumed after change ${i}`).toEqual(text(rows.slice(i + 1)));
        }
      },
    ));
});
