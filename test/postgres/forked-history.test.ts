import { afterEach, expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { parsePosition } from "../../lib/change/position.ts";
import type { SlotState } from "../../lib/source/postgres/slot/slot-record.ts";
import { TcpFaultProxy } from "../../lib/testing/fault/tcp-proxy.ts";
import { eventually } from "../eventually.ts";
import { installed } from "./server.ts";
import { definition, MemoryRecord, OpenSource } from "./source.ts";
import { TwoHistories } from "./two-histories.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A captured table, its record, and a source of it at a time. */
class Rig {
  readonly two: TwoHistories;
  readonly record = new MemoryRecord();

  constructor(two: TwoHistories) {
    this.two = two;
  }

  async source(acknowledging = true, url = this.two.url): Promise<OpenSource> {
    const pipeline = definition(url, { tables: ["public.t"] });
    return await OpenSource.open(url, { record: this.record, pipeline, acknowledging });
  }
}

const value = (change: SourceChange | undefined) => JSON.parse(`${change?.json}}}`).after.v as string;

for (const { name, binaries } of installed) {
  const made = async () => {
    const two = new TwoHistories(binaries as NonNullable<typeof binaries>);
    cleanups.push(() => two.end());
    const rig = new Rig(two);
    await two.start("primary");
    await two.query("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE junk (v text)");
    const first = await rig.source();
    await two.query("INSERT INTO t VALUES (1, 'first')");
    await eventually(() => first.changes.length === 1, { what: "first" });
    await first.close();
    return rig;
  };

  test.skipIf(!binaries)(
    `${name}: a server that lost commits which were given and not confirmed is never read again`,
    async () => {
      const rig = await made();
      const { two } = rig;
      await two.copy();
      const dying = await rig.source(false);
      await two.query("INSERT INTO junk SELECT repeat('x', 1000) FROM generate_series(1, 100)");
      await two.query("UPDATE t SET v = 'phantom' WHERE id = 1");
      await eventually(() => dying.changes.length > 0, { what: "phantom" });
      await dying.close();
      await two.stop("immediate");

      await two.start("copy");
      await two.query("UPDATE t SET v = 'real' WHERE id = 1");
      const behind = await rig.source();
      expect(await behind.failure()).toMatchObject({ code: "SERVER_BEHIND", retry: "stop" });
      await behind.close();
      // It has written on: its log is longer than what the stream has.
      await two.query("INSERT INTO junk SELECT repeat('x', 1000) FROM generate_series(1, 500)");
      await two.query("UPDATE t SET v = 'more' WHERE id = 1");
      const forked = await rig.source();
      expect(await forked.failure()).toMatchObject({ code: "HISTORY_FORKED", retry: "stop" });
      expect([...behind.changes, ...forked.changes]).toEqual([]);
      await forked.close();
      // Once found, it is not forgotten.
      const again = await rig.source();
      expect(await again.failure()).toMatchObject({ code: "HISTORY_FORKED", retry: "stop" });
      await again.close();
    },
  );

  test.skipIf(!binaries)(
    `${name}: a server that is what it was goes on, whatever was not confirmed`,
    async () => {
      const rig = await made();
      const { two } = rig;
      const dying = await rig.source(false);
      await two.query("UPDATE t SET v = 'second' WHERE id = 1");
      await eventually(() => dying.changes.length > 0, { what: "second" });
      const written = parsePosition((dying.changes.at(-1) as SourceChange).position).commitLsn;
      await dying.close();
      expect(rig.record.state?.sent?.places.map(({ lsn }) => lsn)).toContain(written);
      await two.stop("immediate");

      await two.start("primary");
      await two.query("UPDATE t SET v = 'third' WHERE id = 1");
      const next = await rig.source();
      await next.until(2);
      expect(next.changes.map(value)).toEqual(["second", "third"]);
      await next.close();
      // All is confirmed: the next one has nothing to look for.
      expect(rig.record.state?.sent).toEqual({ places: [] });
      const last = await rig.source();
      await last.close();
      expect(last.log.lines.join()).not.toContain("still has it");
    },
  );

  test.skipIf(!binaries)(
    `${name}: what another task wrote is met, too, before anything is given`,
    async () => {
      const rig = await made();
      const { two } = rig;
      const dead = await rig.source(false);
      await two.query("UPDATE t SET v = 'second' WHERE id = 1", "UPDATE t SET v = 'third' WHERE id = 1");
      await eventually(() => dead.changes.length > 1, { what: "third" });
      const [second, third] = dead.changes.map((change) => ({
        ...JSON.parse(`${change.json}}}`).source,
        lsn: parsePosition(change.position).commitLsn,
      }));
      await dead.close();
      // As the stream's tail tells it.
      const state = rig.record.state as SlotState;
      const from = (place: typeof second, xid = Number(place.txId)) => {
        const places = [{ lsn: place.lsn, commit: { xid, timeMs: place.ts_ms } }];
        rig.record.state = { ...state, sent: { places } };
      };
      from(second);
      const one = await rig.source(false);
      await one.until(2);
      await one.close();
      from(third, Number(third.txId) + 1);
      const other = await rig.source();
      expect(await other.failure()).toMatchObject({ code: "HISTORY_FORKED" });
      expect(other.changes).toEqual([]);
      await other.close();
      // Between the two is nothing.
      from({ ...second, lsn: second.lsn + 8n });
      const nothing = await rig.source();
      expect(await nothing.failure()).toMatchObject({ code: "HISTORY_FORKED" });
      expect(nothing.changes).toEqual([]);
      await nothing.close();
    },
  );

  test.skipIf(!binaries)(
    `${name}: tasks that confirm nothing leave no more places, however many they are`,
    async () => {
      const rig = await made();
      const places: number[] = [];
      for (let round = 1; round <= 4; round++) {
        const task = await rig.source(false);
        await rig.two.query(`UPDATE t SET v = '${round}' WHERE id = 1`);
        await task.until(round);
        await task.close();
        places.push(rig.record.state?.sent?.places.length ?? 0);
      }
      expect(places[3]).toBe(places[1]);
    },
  );

  test.skipIf(!binaries)(`${name}: a failover that lost nothing goes on by itself`, async () => {
    const rig = await made();
    const { two } = rig;
    const dying = await rig.source(false);
    await two.query("UPDATE t SET v = 'second' WHERE id = 1");
    await eventually(() => dying.changes.length > 0, { what: "second" });
    await dying.close();
    expect(rig.record.state?.sent?.places).not.toEqual([]);
    await two.copy(false);
    await two.promote();
    await two.query("UPDATE t SET v = 'third' WHERE id = 1");
    const next = await rig.source();
    await next.until(2);
    expect(next.changes.map(value)).toEqual(["second", "third"]);
    expect(rig.record.state?.timeline).toBe(2);
    await next.close();
  });

  test.skipIf(!binaries)(`${name}: a failover that lost what was given is told by its timeline`, async () => {
    const rig = await made();
    const { two } = rig;
    await two.copy();
    const dying = await rig.source(false);
    await two.query("UPDATE t SET v = 'phantom' WHERE id = 1");
    await eventually(() => dying.changes.length > 0, { what: "phantom" });
    await dying.close();
    await two.stop("immediate");
    await two.promote();
    await two.query("INSERT INTO junk SELECT repeat('x', 1000) FROM generate_series(1, 500)");
    await two.query("UPDATE t SET v = 'real' WHERE id = 1");
    for (const code of ["TIMELINE_FORKED", "HISTORY_FORKED"]) {
      // The second one finds the new timeline in the record, and the transaction gone all the same.
      const forked = await rig.source();
      expect(await forked.failure()).toMatchObject({ code, retry: "stop" });
      expect(forked.changes).toEqual([]);
      await forked.close();
    }
  });

  test.skipIf(!binaries)(`${name}: a message outside of transactions is a place, too`, async () => {
    const rig = await made();
    const { two } = rig;
    await two.copy();
    const dying = await rig.source(false);
    // Outside of transactions, and in the stream of nobody.
    await two.query(
      "SELECT pg_logical_emit_message(false, 'app', 'phantom')",
      "INSERT INTO junk VALUES ('x')",
    );
    await two.query("SELECT pg_logical_emit_message(false, 'app', 'last')", "CHECKPOINT");
    await eventually(() => (dying.status?.receivedLsn ?? 0n) > (rig.record.state?.confirmedLsn ?? 0n), {
      what: "more log",
    });
    await dying.close();
    const places = rig.record.state?.sent?.places ?? [];
    expect(places.filter(({ commit }) => commit === undefined)).toHaveLength(1);
    const goesOn = await rig.source(false);
    await eventually(() => goesOn.log.lines.some((line) => line.includes("has all that")), {
      what: "the proof",
    });
    await goesOn.close();
    await two.stop("immediate");
    await two.start("copy");
    await two.query("INSERT INTO junk SELECT repeat('x', 1000) FROM generate_series(1, 500)");
    const forked = await rig.source();
    expect(await forked.failure()).toMatchObject({ code: "HISTORY_FORKED" });
    await forked.close();
  });

  test.skipIf(!binaries)(
    `${name}: a server that loses a message between two links of a task is not read on`,
    async () => {
      const rig = await made();
      const { two } = rig;
      await two.copy();
      const task = await rig.source(false);
      // What a backfill reads stands at such a place, and consumers remember it.
      await two.query("INSERT INTO junk SELECT repeat('x', 1000) FROM generate_series(1, 100)");
      await two.query(
        "SELECT pg_logical_emit_message(false, 'app', 'phantom')",
        "INSERT INTO junk VALUES ('x')",
      );
      const { confirmedLsn } = rig.record.state as SlotState;
      await eventually(() => (task.status?.receivedLsn ?? 0n) > confirmedLsn + 100_000n, {
        what: "the message",
      });
      await two.stop("immediate");
      await two.start("copy");
      await two.query("UPDATE t SET v = 'real' WHERE id = 1");
      await eventually(() => task.error !== undefined || task.changes.length > 0, { what: "an end" });
      expect(task.changes).toEqual([]);
      expect(task.error).toMatchObject({
        code: expect.stringMatching(/^(SERVER_BEHIND|HISTORY_FORKED)$/),
        retry: "stop",
      });
      await task.close();
    },
  );

  test.skipIf(!binaries)(
    `${name}: a server that loses commits between the proof and the link behind it is not read`,
    async () => {
      const rig = await made();
      const { two } = rig;
      await two.copy();
      const dying = await rig.source(false);
      await two.query("UPDATE t SET v = 'phantom' WHERE id = 1");
      await eventually(() => dying.changes.length > 0, { what: "phantom" });
      await dying.close();
      const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: Number(new URL(two.url).port) });
      cleanups.push(() => proxy.stop());
      const next = await rig.source(false, proxy.urlFor(two.url));
      const lines = next.log.lines;
      next.log.info = (line) => {
        lines.push(line);
        if (!line.includes("has all that")) return;
        void proxy.refuse();
        for (const link of proxy.links) link.cut();
      };
      await eventually(() => lines.some((line) => line.includes("has all that")), { what: "the proof" });
      await two.stop("immediate");
      await two.start("copy");
      await two.query("INSERT INTO junk SELECT repeat('x', 1000) FROM generate_series(1, 500)");
      await two.query("UPDATE t SET v = 'real' WHERE id = 1");
      await proxy.accept();
      await eventually(() => next.error !== undefined || next.changes.length > 0, { what: "an end" });
      expect(next.changes).toEqual([]);
      expect(next.error).toMatchObject({ code: "HISTORY_FORKED", retry: "stop" });
      await next.close();
    },
  );
}
