import { afterEach, expect, test } from "vitest";
import { Operation } from "../../lib/consume/api/operation.ts";
import { DONE, invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { installed } from "../postgres/server.ts";
import { TwoHistories } from "../postgres/two-histories.ts";
import { CaptureBench, type Program } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** The first request has the beats of the shards, the second one the first changes. */
const DIES_WHEN_STORED = { TRIBUTARY_FAILPOINTS: "put-records-answered=kill@2" };
const LEASE = { TRIBUTARY_LEASE_MS: "2000" };

for (const { name, binaries } of installed) {
  /** A pipeline whose capture task has died when Kinesis had its last change, and nobody else knew. */
  async function died(options: { readonly copy: boolean }) {
    const two = new TwoHistories(binaries as NonNullable<typeof binaries>);
    cleanups.push(() => two.end());
    await two.start("primary");
    const b = await CaptureBench.create(aws(), two.url, { source: { tables: ["public.orders"] } });
    cleanups.push(() => b.end());
    const run = (environment: Record<string, string> = {}): Program =>
      b.capture({ ...LEASE, DATABASE_URL: two.url, ...environment });
    const first = run();
    await first.printed("streaming from slot");
    await two.query("INSERT INTO orders VALUES (1, 'first')");
    await b.reached(1);
    first.signal("SIGTERM");
    expect(await first.ended).toBe(0);
    if (options.copy) await two.copy();
    const dying = run(DIES_WHEN_STORED);
    await dying.printed("streaming from slot");
    // One that ended in order cost nothing.
    expect(dying.lines.join()).not.toMatch(/did not end in order|still has it/);
    await two.query("INSERT INTO orders VALUES (2, 'phantom')");
    expect(await dying.ended).toBe("SIGKILL");
    await b.reached(2);
    await two.stop("immediate");
    return { b, two, run };
  }

  const effects = async (b: CaptureBench) => {
    const notes: string[] = [];
    const handler = b.consumer.instance((consumer) =>
      consumer.on("public.orders", Operation.Create, (event) => void notes.push(String(event.after.note))),
    );
    expect(await invoke(handler, await b.records())).toEqual(DONE);
    return notes;
  };

  test.skipIf(!binaries)(
    `${name}: a server that lost what the stream has stops the next task, until a new epoch`,
    async () => {
      const { b, two, run } = await died({ copy: true });
      await two.start("copy");
      // Enough that its log is longer than the one that is lost.
      await two.query(
        "INSERT INTO orders VALUES (2, 'real')",
        "CREATE TABLE junk AS SELECT repeat('x', 1000) AS v FROM generate_series(1, 500)",
        "INSERT INTO orders VALUES (3, 'more')",
      );
      const forked = run();
      expect(await forked.ended).toBe(2);
      expect(forked.lines.join("\n")).toContain('"code":"HISTORY_FORKED"');
      expect(forked.lines.join("\n")).toContain("epoch new --drop-slot");
      expect((await b.written()).map(({ id }) => id)).toEqual([1, 2]);
      // Starting again does not make it forget.
      const again = run();
      expect(await again.ended).toBe(2);
      expect(again.lines.join("\n")).toContain('"code":"HISTORY_FORKED"');
      expect((await b.written()).map(({ id }) => id)).toEqual([1, 2]);

      const begun = b.run(
        { ...LEASE, DATABASE_URL: two.url },
        "epoch",
        "new",
        "--drop-slot",
        "--confirm",
        "shop",
      );
      expect([await begun.ended, ...begun.lines]).toEqual([0, ...begun.lines]);
      const healed = run();
      await healed.printed("streaming from slot");
      await two.query("INSERT INTO orders VALUES (4, 'after')");
      await b.reached(4);
      healed.signal("SIGTERM");
      expect(await healed.ended).toBe(0);
      expect(await effects(b)).toEqual(["first", "phantom", "after"]);
    },
  );

  test.skipIf(!binaries)(`${name}: after a crash of task and server everything goes on, once`, async () => {
    const { b, two, run } = await died({ copy: false });
    await two.start("primary");
    await two.query("INSERT INTO orders VALUES (3, 'more')");
    const next = run();
    const told = await next.printed("read what the capture task before left in the stream");
    expect(JSON.parse(told).places).toHaveLength(1);
    await next.printed("the server has all that the stream was written from");
    await b.reached(3);
    next.signal("SIGTERM");
    expect(await next.ended).toBe(0);
    expect(await effects(b)).toEqual(["first", "phantom", "more"]);
  });
}
