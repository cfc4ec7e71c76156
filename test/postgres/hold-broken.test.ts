import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { DirectoryClaimStore } from "../../lib/claim-check/directory-claim-store.ts";
import { TopicHoldFullError } from "../../lib/source/postgres/hold/hold-errors.ts";
import type { Hold } from "../../lib/source/postgres/hold/hold-record.ts";
import { StateTableUnavailableError } from "../../lib/state/state-errors.ts";
import { eventually } from "../eventually.ts";
import { MemoryHolds } from "./hold-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-hold-broken-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const TOPIC = "shop.public.orders";
/** In a database without an encoding: one byte that is no UTF-8. */
const UNREADABLE = "chr(233)";

async function scene(server: Parameters<typeof freshDatabase>[0]) {
  const url = await freshDatabase(server, { encoding: "SQL_ASCII" });
  const client = await superuser(url);
  await client.query("SET client_encoding = 'SQL_ASCII'");
  await client.query("CREATE TABLE public.orders (id int PRIMARY KEY, v text)");
  const record = new MemoryRecord();
  const holds = new MemoryHolds();
  const open = (
    encoding: "utf-8" | "latin1" = "utf-8",
    more: Partial<Parameters<typeof OpenSource.open>[1]> & { limitBytes?: number } = {},
  ) =>
    OpenSource.open(url, {
      pipeline: definition(
        url,
        { sqlAsciiEncoding: encoding },
        { topics: { keys: { "public.orders": ["id"] } } },
      ),
      record,
      holds: {
        record: holds,
        store: new DirectoryClaimStore(directory),
        generation: 1,
        ...(more.limitBytes === undefined ? {} : { limitBytes: more.limitBytes }),
      },
      ...more,
    });
  const held = (changes: number) =>
    eventually(() => holds.holds.get(TOPIC)?.changes === changes, { what: `${changes} held changes` });
  const ended = () =>
    eventually(() => holds.holds.size === 0, { what: "the hold's end", deadlineMs: 20_000 });
  return { url, client, record, holds, open, held, ended };
}

/** `c1`: the insert of the row with id 1. */
const ops = (changes: readonly SourceChange[]) =>
  changes.map(({ json }) => {
    const { op, before, after } = JSON.parse(`${json}}}`);
    return `${op}${(after ?? before).id}`;
  });

eachPostgres("a held topic", (server) => {
  test("has the old key's delete once where the new row cannot be read", async () => {
    const { client, holds, open, held, ended } = await scene(server());
    const first = await open();
    await client.query("INSERT INTO public.orders VALUES (1, 'x')");
    await first.until(1);
    await client.query(`UPDATE public.orders SET id = 10, v = ${UNREADABLE} WHERE id = 1`);
    await held(1);
    await first.close();
    holds.wanted.add(TOPIC);
    const second = await open("latin1");
    await ended();
    await second.close();
    expect(ops([...first.changes, ...second.changes])).toEqual(["c1", "d1", "c10"]);
    await client.end();
  });

  test("says how many of its changes are not given where their table has left the definition", async () => {
    const { url, client, holds, open, held, ended } = await scene(server());
    const first = await open();
    await client.query(`INSERT INTO public.orders VALUES (1, ${UNREADABLE})`);
    await client.query(`INSERT INTO public.orders VALUES (2, ${UNREADABLE})`);
    await held(2);
    await first.close();
    await client.query("CREATE TABLE public.other (id int PRIMARY KEY)");
    holds.wanted.add(TOPIC);
    const without = definition(url, {
      sqlAsciiEncoding: "utf-8",
      tables: ["public.*"],
      exclude: ["public.orders"],
    });
    const second = await open("utf-8", { pipeline: without });
    await ended();
    expect(ops(second.changes)).toEqual([]);
    expect(second.log.lines.join("\n")).toContain("2 held changes of public.orders are not given");
    await second.close();
    await client.end();
  });

  test("is released in the end where the state table is away during its release: in order, nothing lost", async () => {
    const { client, holds, open, held, ended } = await scene(server());
    const first = await open();
    for (let id = 1; id <= 3; id++) {
      await client.query(`INSERT INTO public.orders VALUES (${id}, ${UNREADABLE})`);
      await held(id);
    }
    await first.close();
    holds.wanted.add(TOPIC);
    // Each write in turn: of what is in the stream, of that again, of the hold's end.
    const away = { write: holds.write.bind(holds), end: holds.end.bind(holds) };
    const given: SourceChange[] = [];
    for (const at of ["write", "write", "end"] as const) {
      holds[at] = async () => {
        throw new StateTableUnavailableError("state", new Error("away"));
      };
      const source = await open("latin1");
      const error = await source.failure();
      expect(error).toBeInstanceOf(StateTableUnavailableError);
      given.push(...source.changes);
      await source.close();
      holds.write = away.write;
      holds.end = away.end;
    }
    const last = await open("latin1");
    await ended();
    await client.query("INSERT INTO public.orders VALUES (4, 'x')");
    await eventually(() => ops(last.changes).includes("c4"), { what: "what follows" });
    given.push(...last.changes);
    await last.close();
    // What comes again comes at its own position; each for the first time in its order.
    const positions = given.map(({ position }) => position);
    expect(ops(given.filter(({ position }, i) => positions.indexOf(position) === i))).toEqual([
      ...["c1", "c2", "c3", "c4"],
    ]);
    await client.end();
  });

  test("begins at an update's first ordinal: read again, it is stored already", async () => {
    const { client, holds, open, held, ended } = await scene(server());
    await client.query("INSERT INTO public.orders VALUES (1, 'x')");
    const first = await open("utf-8", { acknowledging: false });
    await client.query(`UPDATE public.orders SET v = ${UNREADABLE} WHERE id = 1`);
    await held(1);
    await first.close();
    holds.wanted.add(TOPIC);
    const second = await open("latin1");
    await ended();
    await second.close();
    expect(ops(second.changes)).toEqual(["u1"]);
    await client.end();
  });

  test("gives nothing twice where a release was refused behind an update and is asked for again", async () => {
    const { client, holds, open, held } = await scene(server());
    await client.query("INSERT INTO public.orders VALUES (1, 'x')");
    const first = await open();
    // In one segment. The key that the definition chose is gone for a while.
    await client.query(
      `BEGIN; UPDATE public.orders SET v = ${UNREADABLE} WHERE id = 1; ALTER TABLE public.orders DROP COLUMN id; INSERT INTO public.orders VALUES ('y'); COMMIT`,
    );
    await held(2);
    await first.close();
    await client.query("ALTER TABLE public.orders ADD COLUMN id serial PRIMARY KEY");
    const second = await open("latin1");
    for (const refusals of [1, 2]) {
      holds.wanted.add(TOPIC);
      await eventually(
        () => second.log.lines.filter((line) => line.includes("stopped")).length === refusals,
        { what: "the refusal" },
      );
    }
    expect(ops(second.changes)).toEqual(["u1"]);
    await second.close();
    await client.end();
  });

  test("keeps its positions in a new epoch, whose log may begin anywhere", async () => {
    const { client, record, holds, open, held, ended } = await scene(server());
    const first = await open();
    await client.query(`INSERT INTO public.orders VALUES (1, ${UNREADABLE})`);
    await client.query("INSERT INTO public.orders VALUES (2, 'x')");
    await held(2);
    await first.close();
    if (!record.state) throw new Error("no state");
    record.state = { ...record.state, epoch: record.state.epoch + 1 };
    const hold = holds.holds.get(TOPIC) as Hold;
    // The log of the epoch before was longer than the new one is.
    holds.holds.set(TOPIC, { ...hold, last: hold.last.replace(/^(.{8}).{16}/, "$1FFFFFFFF00000000") });
    holds.wanted.add(TOPIC);
    const second = await open("latin1");
    await ended();
    await second.close();
    expect(ops(second.changes)).toEqual(["c1", "c2"]);
    inOrder(second.changes);
    await client.end();
  });

  test("that is full is released at the next start, also where the rest of its transaction is to come", async () => {
    const { client, holds, open, ended } = await scene(server());
    const first = await open("utf-8", { limitBytes: 3000 });
    await client.query(
      `BEGIN; INSERT INTO public.orders VALUES (1, ${UNREADABLE}); INSERT INTO public.orders VALUES (2, repeat('x', 4000)); COMMIT`,
    );
    expect(await first.failure()).toBeInstanceOf(TopicHoldFullError);
    await first.close();
    holds.wanted.add(TOPIC);
    const second = await open("latin1", { limitBytes: 3000 });
    await second.until(2);
    await ended();
    await second.close();
    expect(ops(second.changes)).toEqual(["c1", "c2"]);
    await client.end();
  });

  test("is given once where the task is told to stop while the stream stores what was released", async () => {
    const { client, holds, open, held, ended } = await scene(server());
    const first = await open();
    await client.query(`INSERT INTO public.orders VALUES (1, ${UNREADABLE})`);
    await held(1);
    await first.close();
    holds.wanted.add(TOPIC);
    const second = await open("latin1", { acknowledging: false });
    await second.until(1);
    const closing = second.close();
    // As the writer does: it stores what it was given, then the source is closed.
    for (const message of second.messages) if (message.kind === "receipt") message.stored();
    await closing;
    const third = await open("latin1");
    await ended();
    await third.close();
    expect(ops([...second.changes, ...third.changes])).toEqual(["c1"]);
    await client.end();
  });

  test("lets the task end while the claim store is down and as much waits as may", async () => {
    const { client, open } = await scene(server());
    const store = new DirectoryClaimStore(directory);
    store.put = async (_claim, _bytes, signal) => {
      await once(signal, "abort");
      signal.throwIfAborted();
    };
    const source = await open("utf-8", { holds: { record: new MemoryHolds(), store, generation: 1 } });
    await client.query(`INSERT INTO public.orders VALUES (0, ${UNREADABLE})`);
    await client.query(
      "INSERT INTO public.orders SELECT g, repeat('x', 1000000) FROM generate_series(1, 30) g",
    );
    await eventually(() => source.log.lines.some((line) => line.includes("is held")), { what: "the hold" });
    await delay(2_000);
    const ended = await Promise.race([source.close().then(() => true), delay(20_000, false)]);
    expect(ended).toBe(true);
    await client.end();
  }, 40_000);
});
