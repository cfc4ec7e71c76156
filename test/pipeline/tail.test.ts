import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { ChangeEventJson } from "../../lib/change/event.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

withPostgres((server) => {
  let url: string;
  let client: pg.Client;
  /** Slots are the server's, not the database's: each test has its own. */
  let slot: string;
  let tests = 0;

  beforeEach(async () => {
    url = await freshDatabase(server());
    slot = `tributary_tail_${++tests}`;
    client = new pg.Client({ connectionString: url });
    client.on("error", () => {});
    await client.connect();
    await client.query("CREATE TABLE orders (id bigint PRIMARY KEY, note text)");
  });
  afterEach(async () => {
    await client.end();
  });

  /** Runs tail as a user does. `into` is a shell command that reads its standard output. */
  function tail(args: readonly string[], into = "cat", { byVariable = false } = {}) {
    const database = byVariable ? [] : ["--database-url", url];
    const quoted = [...database, "--slot", slot, ...args].map((arg) => `'${arg}'`).join(" ");
    const shell = spawn(
      "bash",
      ["-c", `npm run -s tributary -- tail ${quoted} | ${into}; exit "\${PIPESTATUS[0]}"`],
      {
        cwd: root,
        detached: true,
        env: { ...process.env, ...(byVariable ? { DATABASE_URL: url } : {}) },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    const said = { out: "", err: "" };
    shell.stdout.setEncoding("utf8").on("data", (text: string) => {
      said.out += text;
    });
    shell.stderr.setEncoding("utf8").on("data", (text: string) => {
      said.err += text;
    });
    const ended = once(shell, "close").then(([code]) => ({ code: code as number | null, ...said }));
    return {
      ended,
      said,
      streaming: () => eventually(() => said.err.includes("streaming from slot"), { what: "streaming" }),
      /** To the whole group, as a terminal does. */
      kill: (signal: NodeJS.Signals) => process.kill(-(shell.pid as number), signal),
    };
  }

  const events = (out: string) =>
    out
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as ChangeEventJson);

  const confirmed = async () =>
    (
      await client.query(
        "SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1",
        [slot],
      )
    ).rows[0]?.lsn as string | undefined;

  test("prints changes as JSON lines, and the next tail goes on where this one ended", async () => {
    const first = tail(["--tables", "public.*", "--limit", "2"]);
    await first.streaming();
    await client.query("INSERT INTO orders VALUES (9007199254740993, 'a')");
    await client.query("UPDATE orders SET note = 'b'");
    const { code, out } = await first.ended;
    expect(code).toBe(0);
    expect(events(out).map((event) => [event.op, event.after])).toEqual([
      ["c", { id: "9007199254740993", note: "a" }],
      ["u", { id: "9007199254740993", note: "b" }],
    ]);

    await client.query("DELETE FROM orders");
    const second = await tail(["--tables", "public.*", "--limit", "1", "--drop-slot"]).ended;
    expect(events(second.out).map((event) => [event.op, event.before])).toEqual([
      ["d", { id: "9007199254740993" }],
    ]);
    expect(await confirmed()).toBeUndefined();
  });

  test("a second tail of a slot says at once who reads it, and changes nothing", async () => {
    const first = tail(["--tables", "public.*", "--limit", "2"]);
    await first.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'a')");
    await eventually(() => events(first.said.out).length === 1, { what: "the first change" });
    const { rows } = await client.query("SELECT active_pid AS pid FROM pg_replication_slots");
    const second = await tail(["--tables", "public.*", "--limit", "1"]).ended;
    expect(second).toMatchObject({ code: 1, out: "" });
    expect(second.err).toContain(`in use by process ${rows[0].pid} ("tributary")`);
    expect(second.err).not.toMatch(/waiting|epoch|^ +at /m);
    await client.query("INSERT INTO orders VALUES (2, 'b')");
    expect(events((await first.ended).out).map((event) => event.after?.id)).toEqual(["1", "2"]);
  });

  test("what was cut off inside a transaction comes again whole", async () => {
    const first = tail(["--limit", "2"]);
    await first.streaming();
    await client.query("INSERT INTO orders SELECT g, 'x' FROM generate_series(1, 5) g");
    expect(events((await first.ended).out)).toHaveLength(2);
    const again = await tail(["--limit", "5", "--drop-slot"]).ended;
    expect(events(again.out).map((event) => event.after?.id)).toEqual(["1", "2", "3", "4", "5"]);
  });

  test("a renamed table ends it with tail's own way out, and the same tail goes on from there", async () => {
    const first = tail(["--tables", "public.*"]);
    await first.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'a')");
    await eventually(() => events(first.said.out).length === 1, { what: "the first change" });
    await client.query("ALTER TABLE orders RENAME TO orders_2026; INSERT INTO orders_2026 VALUES (2, 'b')");
    const { code, err } = await first.ended;
    expect(code).toBe(1);
    expect(err).toMatch(
      /What to do: Run the same tail again: .*\n\s*More: npm run -s tributary -- explain TABLE_REPLACED/,
    );
    expect(err).not.toContain("capture");
    const again = await tail(["--tables", "public.*", "--limit", "1", "--drop-slot"]).ended;
    expect([again.code, ...events(again.out).map(({ source, after }) => [source.table, after?.id])]).toEqual([
      0,
      ["orders_2026", "2"],
    ]);
  });

  test("SIGTERM ends it cleanly; the slot stays, with what was printed confirmed", async () => {
    const run = tail([]);
    await run.streaming();
    const before = await confirmed();
    await client.query("INSERT INTO orders VALUES (1, 'a')");
    await eventually(() => run.said.out.includes("\n"), { what: "the line" });
    run.kill("SIGTERM");
    const { err } = await run.ended;
    expect(err).toContain(`the slot "${slot}" stays`);
    expect(await confirmed()).not.toBe(before);
  });

  test("a reader that stands still holds up neither PostgreSQL nor a signal; what it did not take comes again", async () => {
    // A session of its own: the signal is for tail alone.
    const run = tail([], "setsid sh -c 'echo $$ >&2; exec sleep 600' > /dev/null");
    await run.streaming();
    const reader = Number(/^\d+$/m.exec(run.said.err)?.[0]);
    try {
      await client.query("INSERT INTO orders SELECT g, repeat('x', 1000) FROM generate_series(1, 2000) g");
      const { rows } = await client.query<{ lsn: string }>("SELECT pg_current_wal_lsn()::text AS lsn");
      const answered = async (since: string) =>
        (
          await client.query<{ at: string }>(
            `SELECT reply_time::text AS at FROM pg_stat_replication
              WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1)
                AND sent_lsn >= $2::pg_lsn AND reply_time > $3::timestamptz`,
            [slot, rows[0]?.lsn, since],
          )
        ).rows[0]?.at;
      // Twice: the second answer comes when the pipe is long full.
      const first = await eventually(() => answered("-infinity"), { what: "an answer" });
      await eventually(() => answered(first), { what: "another answer" });
      run.kill("SIGTERM");
      await eventually(() => run.said.err.includes(`the slot "${slot}" stays`), { what: "its end" });
    } finally {
      process.kill(reader, "SIGKILL");
    }
    await run.ended;
    const again = await tail(["--limit", "2000", "--drop-slot"]).ended;
    expect(events(again.out)).toHaveLength(2000);
  });

  test("a reader that leaves ends it, although nothing more happens", async () => {
    const run = tail([], "head -1");
    await run.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'a'), (2, 'b')");
    const { code, out } = await run.ended;
    expect(code).toBe(0);
    expect(events(out)).toHaveLength(1);
  });

  test("an existing publication says which tables", async () => {
    await client.query("CREATE TABLE keyless (x int); CREATE PUBLICATION mine FOR TABLE orders");
    const run = tail(["--publication", "mine", "--limit", "1", "--drop-slot"]);
    await run.streaming();
    await client.query("INSERT INTO keyless VALUES (1); INSERT INTO orders VALUES (7, 'seven')");
    const { code, out } = await run.ended;
    expect(code).toBe(0);
    expect(events(out).map((event) => event.source.table)).toEqual(["orders"]);
    expect((await client.query("SELECT 1 FROM pg_publication WHERE pubname = 'mine'")).rowCount).toBe(1);
  });

  test("a publication is followed: what joins it is printed, and what left it for the time it was in", async () => {
    await client.query("CREATE TABLE later (id int PRIMARY KEY); CREATE PUBLICATION mine FOR TABLE orders");
    const first = tail(["--publication", "mine", "--limit", "2"]);
    await first.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'in')");
    await client.query("ALTER PUBLICATION mine ADD TABLE later");
    await client.query("INSERT INTO later VALUES (2)");
    expect(events((await first.ended).out).map(({ source, after }) => [source.table, after?.id])).toEqual([
      ["orders", "1"],
      ["later", 2],
    ]);
    // While nobody reads, both leave: the publication is empty then.
    await client.query("INSERT INTO orders VALUES (3, 'still in')");
    await client.query("ALTER PUBLICATION mine DROP TABLE orders, later");
    await client.query("INSERT INTO orders VALUES (4, 'out')");
    const second = tail(["--publication", "mine", "--limit", "2", "--drop-slot"]);
    await second.streaming();
    await client.query("ALTER PUBLICATION mine ADD TABLE orders");
    await client.query("INSERT INTO orders VALUES (5, 'in again')");
    const { out, err } = await second.ended;
    expect(events(out).map(({ after }) => after?.id)).toEqual(["3", "5"]);
    expect(err).toMatch(/"mine" holds no table now/);
  });

  test("a pipeline's publication is read as it is, and left as it is", async () => {
    await client.query(`CREATE PUBLICATION theirs FOR TABLE orders WHERE (id > 10);
      COMMENT ON PUBLICATION theirs IS 'Made by Tributary for the pipeline "shop"'`);
    const rows = async () => (await client.query("SELECT xmin, * FROM pg_publication_rel")).rows;
    const before = await rows();
    const run = tail(["--publication", "theirs", "--limit", "1", "--drop-slot"]);
    await run.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'filtered'), (11, 'seen')");
    expect(events((await run.ended).out).map(({ after }) => after?.id)).toEqual(["11"]);
    expect(await rows()).toEqual(before);
  });

  test("--drop-slot removes what an earlier tail left, and the publication with the last slot that needs it", async () => {
    for (const suffix of ["", "_b"]) {
      const run = tail(["--slot", `${slot}${suffix}`]);
      await run.streaming();
      run.kill("SIGTERM");
      await run.ended;
    }
    const dropLeft = async (name: string) =>
      (await tail(["--slot", name, "--limit", "0", "--drop-slot"]).ended).err;
    expect(await dropLeft(`${slot}_b`)).toBe(`tributary: dropped the slot "${slot}_b"\n`);
    expect(await dropLeft(slot)).toContain(`dropped the slot "${slot}" and the publication "tributary_tail"`);
    expect(await dropLeft(slot)).toContain("there is no slot");
    expect(await confirmed()).toBeUndefined();
  });

  test("--drop-slot drops a slot of another name when this run made it, and never one that was there", async () => {
    slot = `shop_${tests}`;
    const run = tail(["--limit", "1", "--drop-slot"]);
    await run.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'a')");
    expect((await run.ended).code).toBe(0);
    expect(await confirmed()).toBeUndefined();

    await client.query(`CREATE PUBLICATION ${slot} FOR TABLE orders`);
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    const there = await confirmed();
    try {
      for (const limit of ["0", "1"]) {
        const refused = await tail(["--publication", slot, "--limit", limit, "--drop-slot"]).ended;
        expect(refused).toMatchObject({ code: 1, out: "" });
        expect(refused.err).toMatch(
          /shop_\d+" is not tail's to drop: .*pg_drop_replication_slot.*SLOT_FOREIGN/s,
        );
        expect(await confirmed()).toBe(there);
      }
      // What tail read would be missing in the pipeline.
      await client.query(`COMMENT ON PUBLICATION ${slot} IS 'Made by Tributary for the pipeline "shop"'`);
      const refused = await tail(["--limit", "1"]).ended;
      expect(refused).toMatchObject({ code: 1, out: "" });
      expect(refused.err).toMatch(/is that of the pipeline "shop".*SLOT_FOREIGN/s);
      expect(await confirmed()).toBe(there);
    } finally {
      await client.query("SELECT pg_drop_replication_slot($1)", [slot]);
    }
  });

  test("--pretty is a line for people", async () => {
    await client.query("ALTER TABLE orders REPLICA IDENTITY FULL");
    const run = tail(["--pretty", "--limit", "2", "--drop-slot"]);
    await run.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'new')");
    await client.query("UPDATE orders SET note = 'paid'");
    const lines = (await run.ended).out.trim().split("\n");
    expect(lines[0]).toMatch(/^\d\d:\d\d:\d\d\.\d{3} insert {3}public\.orders id=1 note=new$/);
    expect(lines[1]).toMatch(/update {3}public\.orders id=1 note: new → paid$/);
  });

  test("--snapshot prints the rows that are there as op r, then their changes, none lost and none old over new", async () => {
    await client.query("INSERT INTO orders SELECT g, 'old' FROM generate_series(1, 5000) g");
    const run = tail(["--snapshot", "--drop-slot"]);
    await run.streaming();
    // Beside the reading: every row is changed, some are removed, some come.
    for (let i = 0; i < 20; i++) {
      await client.query("UPDATE orders SET note = $1 WHERE id % 20 = $2", [`new ${i}`, i]);
    }
    await client.query("DELETE FROM orders WHERE id <= 100");
    await client.query("INSERT INTO orders VALUES (9999, 'last')");
    await eventually(() => run.said.out.includes('"9999"'), { what: "the last change" });
    await eventually(() => run.said.err.includes("the rows of public.orders are printed"), {
      what: "its end",
    });
    run.kill("SIGTERM");
    const all = events((await run.ended).out);
    const held = new Map<unknown, unknown>();
    for (const { op, before, after } of all) {
      if (op === "d") held.delete(before?.id);
      else held.set(after?.id, after?.note);
    }
    const { rows } = await client.query<{ id: string; note: string }>("SELECT id, note FROM orders");
    expect(new Map([...held].sort())).toEqual(
      new Map(rows.map(({ id, note }) => [id, note] as const).sort()),
    );
    expect(all.some(({ op }) => op === "r")).toBe(true);
    expect(all.every(({ op }) => op !== "m")).toBe(true);
  });

  test("--limit counts the rows of --snapshot", async () => {
    await client.query("INSERT INTO orders SELECT g, 'old' FROM generate_series(1, 10) g");
    const { out, code } = await tail(["--snapshot", "--limit", "3", "--drop-slot"]).ended;
    expect(code).toBe(0);
    expect(events(out).map(({ op, after }) => [op, after?.id])).toEqual([
      ["r", "1"],
      ["r", "2"],
      ["r", "3"],
    ]);
  });

  test("a table that is made while tail runs is printed from its first row, and its neighbours once", async () => {
    await client.query("INSERT INTO orders VALUES (1, 'was there')");
    const run = tail(["--tables", "public.*", "--drop-slot"]);
    await run.streaming();
    await client.query("INSERT INTO orders VALUES (2, 'a')");
    await client.query(
      `BEGIN; CREATE TABLE payments (id bigint PRIMARY KEY); INSERT INTO payments VALUES (1); COMMIT`,
    );
    await client.query("CREATE SCHEMA other");
    await client.query("CREATE TABLE other.payments (id bigint PRIMARY KEY)");
    await eventually(() => run.said.err.includes("the rows of public.payments are printed: 1"), {
      what: "its rows",
    });
    await client.query("INSERT INTO payments VALUES (2)");
    await client.query("INSERT INTO other.payments VALUES (3)");
    await client.query("INSERT INTO orders VALUES (4, 'b')");
    await eventually(() => run.said.out.includes('"id":"4"'), { what: "the last change" });
    run.kill("SIGTERM");
    const { out, err } = await run.ended;
    expect(events(out).map(({ op, source, after }) => `${op} ${source.table} ${after?.id}`)).toEqual([
      "c orders 2",
      "r payments 1",
      "c payments 2",
      "c orders 4",
    ]);
    expect(err).toContain("public.payments is new");
  });

  test("a table that is dropped and made anew while tail runs is printed from its first row", async () => {
    const run = tail(["--tables", "public.*", "--drop-slot"]);
    await run.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'old')");
    await eventually(() => events(run.said.out).length === 1, { what: "the first change" });
    await client.query("DROP TABLE orders");
    await client.query("CREATE TABLE orders (id bigint PRIMARY KEY, total int)");
    await client.query("INSERT INTO orders VALUES (2, 20)");
    await eventually(() => run.said.err.includes("the rows of public.orders are printed: 1"), {
      what: "the rows of the new table",
    });
    await client.query("INSERT INTO orders VALUES (3, 30)");
    await eventually(() => events(run.said.out).length === 3, { what: "the last change" });
    run.kill("SIGTERM");
    const { out } = await run.ended;
    expect(events(out).map(({ op, after }) => [op, after])).toEqual([
      ["c", { id: "1", note: "old" }],
      ["r", { id: "2", total: 20 }],
      ["c", { id: "3", total: 30 }],
    ]);
  });

  test("a table that --tables names and that is dropped holds up no new one", async () => {
    await client.query("CREATE TABLE passing (id bigint PRIMARY KEY)");
    const run = tail(["--tables", "public.passing", "--tables", "public.o*", "--limit", "2", "--drop-slot"]);
    await run.streaming();
    await client.query("DROP TABLE passing");
    await client.query("CREATE TABLE offers (id bigint PRIMARY KEY)");
    await client.query("INSERT INTO offers VALUES (1)");
    await eventually(() => run.said.err.includes("public.offers is new"), { what: "the new table" });
    expect(run.said.err).not.toContain("is not printed");
    await eventually(() => events(run.said.out).length === 1, { what: "its row" });
    await client.query("INSERT INTO orders VALUES (2, 'a')");
    const { code, out } = await run.ended;
    expect(code).toBe(0);
    expect(events(out).map(({ op, source }) => `${op} ${source.table}`)).toEqual(["r offers", "c orders"]);
  });

  test("a tail of other tables takes nothing from one that runs, or from a slot that stays", async () => {
    await client.query("CREATE TABLE payments (id bigint PRIMARY KEY)");
    const stays = tail(["--tables", "public.orders", "--slot", `${slot}_stays`]);
    await stays.streaming();
    stays.kill("SIGTERM");
    await stays.ended;
    const runs = tail(["--tables", "public.orders", "--limit", "2", "--drop-slot"]);
    await runs.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'a')");
    await eventually(() => events(runs.said.out).length === 1, { what: "the first change" });

    const other = tail(["--tables", "public.payments", "--slot", `${slot}_b`, "--limit", "1", "--drop-slot"]);
    await other.streaming();
    await client.query("INSERT INTO orders VALUES (2, 'b')");
    await client.query("INSERT INTO payments VALUES (3)");
    const ids = ({ out }: { out: string }) =>
      events(out).map(({ source, after }) => `${source.table} ${after?.id}`);
    expect(ids(await other.ended)).toEqual(["payments 3"]);
    const seen = await runs.ended;
    expect(seen.code).toBe(0);
    expect(ids(seen)).toEqual(["orders 1", "orders 2"]);
    const again = await tail([
      "--tables",
      "public.orders",
      "--slot",
      `${slot}_stays`,
      "--limit",
      "2",
      "--drop-slot",
    ]).ended;
    expect(ids(again)).toEqual(["orders 1", "orders 2"]);
  });

  test("a slot of any name keeps the publication that it needs, and goes on behind --drop-slot of another", async () => {
    const own = slot;
    slot = `mine_${tests}`;
    const first = tail([]);
    await first.streaming();
    first.kill("SIGTERM");
    await first.ended;
    const dropped = tail(["--slot", own, "--limit", "1", "--drop-slot"]);
    await dropped.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'a')");
    expect((await dropped.ended).err).toContain(`dropped the slot "${own}"\n`);
    try {
      const again = await tail(["--limit", "1"]).ended;
      expect(again).toMatchObject({ code: 0 });
      expect(events(again.out).map(({ after }) => after?.id)).toEqual(["1"]);
    } finally {
      await client.query("SELECT pg_drop_replication_slot($1)", [slot]);
    }
  });

  test("says in one line why a new table cannot be printed, and goes on", async () => {
    const role = `reader_${process.pid}`;
    await client.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'p'`);
    const { rows } = await client.query<{ db: string }>("SELECT current_database() AS db");
    try {
      await client.query(`GRANT CREATE ON DATABASE "${rows[0]?.db}" TO ${role}`);
      await client.query(`ALTER TABLE orders OWNER TO ${role}`);
      const own = new URL(url);
      own.username = role;
      own.password = "p";
      const run = tail(["--database-url", own.toString(), "--drop-slot"]);
      await run.streaming();
      await client.query("CREATE TABLE payments (id bigint PRIMARY KEY)");
      await eventually(() => run.said.err.includes("public.payments is new and is not printed"), {
        what: "the line",
      });
      await client.query("INSERT INTO payments VALUES (1)");
      // One that can be had is not kept from it by one that cannot.
      await client.query(
        `BEGIN; CREATE TABLE invoices (id bigint PRIMARY KEY); ALTER TABLE invoices OWNER TO ${role}; COMMIT`,
      );
      await eventually(() => run.said.err.includes("the rows of public.invoices are printed"), {
        what: "the next new table",
      });
      await client.query("INSERT INTO orders VALUES (1, 'a')");
      await eventually(() => run.said.out.includes('"a"'), { what: "the change" });
      run.kill("SIGTERM");
      const { out, err } = await run.ended;
      expect(events(out)).toHaveLength(1);
      expect(err.match(/^.*is new and is not printed.*GRANT SELECT.*ALTER PUBLICATION.*$/gm)).toHaveLength(1);
    } finally {
      await client.query(`DROP OWNED BY ${role} CASCADE`);
      await client.query(`DROP ROLE ${role}`);
    }
  });

  test("--changed says what became of a row, and what the log does not tell", async () => {
    const run = tail(["--changed", "--limit", "4", "--drop-slot"]);
    await run.streaming();
    await client.query("INSERT INTO orders VALUES (17, 'placed')");
    await client.query("UPDATE orders SET note = 'paid'");
    await client.query("ALTER TABLE orders REPLICA IDENTITY FULL");
    await client.query("UPDATE orders SET note = 'sent'");
    await client.query("DELETE FROM orders");
    const { out, err } = await run.ended;
    expect(out.trim().split("\n")).toEqual([
      "public.orders 17  created, note: placed",
      "public.orders 17  note: ? → paid",
      "public.orders 17  note: paid → sent",
      "public.orders 17  deleted, note: sent",
    ]);
    expect(err.match(/the log has no old values of public\.orders/g)).toHaveLength(1);
  });

  test("takes the database from DATABASE_URL", async () => {
    const run = tail(["--limit", "1", "--drop-slot"], "cat", { byVariable: true });
    await run.streaming();
    await client.query("INSERT INTO orders VALUES (1, 'a')");
    expect(events((await run.ended).out)).toHaveLength(1);
  });

  test.each([
    ["a URL that is none", ["--database-url", "localhost/db"], 2, /DATABASE_URL: write postgres:\/\//],
    ["a number that is none", ["--limit", "many"], 2, /whole number/],
    ["an option that is none", ["--form", "x"], 2, /unknown option '--form'/],
    ["a table that does not exist", ["--tables", "public.nothing"], 1, /public\.nothing/],
    ["a pattern that is none", ["--tables", "orders"], 2, /schema\.table/],
    [
      "a publication that does not exist",
      ["--publication", "nowhere", "--tables", "public.orders"],
      2,
      /nowhere/,
    ],
  ])("%s: a clear error, and nothing was made", async (_what, args, code, message) => {
    const run = await tail(args).ended;
    expect(run.err).toMatch(message);
    expect(run.out).toBe("");
    expect(run.code).toBe(code);
    expect(await confirmed()).toBeUndefined();
  });
});
