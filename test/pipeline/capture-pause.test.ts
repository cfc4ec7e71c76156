import { afterEach, expect, test } from "vitest";
import { Operation } from "../../lib/consume/api/operation.ts";
import { readPauses, setPause } from "../../lib/state/pauses.ts";
import type { StatePlace } from "../../lib/state/persistent-table.ts";
import { DONE, invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench, type Program } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const ADA = { by: "ada", since: Date.now() - 3_600_000, reason: undefined };
const PAUSED = "capture is paused by ada";

withPostgres((server) => {
  async function bench(): Promise<CaptureBench> {
    const made = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => made.end());
    return made;
  }
  const verb = async (b: CaptureBench, ...words: string[]) => {
    const command = b.command("capture", ...words);
    return { code: await command.ended, text: command.lines.join("\n") };
  };
  const place = (b: CaptureBench): StatePlace => ({
    dynamodb: aws().dynamodb,
    table: b.environment.TRIBUTARY_STATE_TABLE as string,
    pipeline: "shop",
    signal: new AbortController().signal,
  });
  /** Values of a metric in the lines of a task. */
  const metric = (task: Program, name: string): number[] =>
    task.lines
      .filter((line) => line.includes('"tributary":"capture"') && line.includes(`"${name}"`))
      .flatMap((line) => (JSON.parse(line) as Record<string, number | number[]>)[name] ?? []);

  async function consumed(b: CaptureBench): Promise<number[]> {
    const ids: number[] = [];
    const handler = b.consumer.instance((consumer) =>
      consumer.on("public.orders", Operation.Create, (event) => void ids.push(Number(event.after.id))),
    );
    expect(await invoke(handler, await b.records())).toEqual(DONE);
    return ids;
  }

  test("paused under load it lets go of slot and lease, stays so over a hand-over and a restart, and goes on without loss", async () => {
    const b = await bench();
    const often = { TRIBUTARY_METRICS_SECONDS: "1", TRIBUTARY_LEASE_MS: "600000" };
    const first = b.capture(often);
    await first.printed("streaming from slot");
    let last = 0;
    let writing = true;
    const load = (async () => {
      while (writing) await b.insert(++last, last);
    })();
    await eventually(() => last > 100, { what: "changes" });
    const paused = await verb(b, "pause", "--by", "ada", "--reason", "fail-over drill");
    expect(paused.code, paused.text).toBe(0);
    expect(paused.text).toMatch(
      /Capture is paused, by ada since .*\("fail-over drill"\)\.\nthe task stands still\. The server keeps \d+ MB of log for it, WITHOUT A BOUND/,
    );
    expect(await b.walsender()).toBeNull();
    const inStream = (await b.written()).length;
    expect(await verb(b, "pause")).toMatchObject({
      code: 1,
      text: expect.stringMatching(/paused already, by ada.*PAUSED_ALREADY/s),
    });
    const atPause = last;
    await eventually(() => last > atPause + 100, { what: "changes that wait" });
    // What the alarms look at goes on; SlotInactive rings.
    await eventually(() => metric(first, "SlotActive").at(-1) === 0, { what: "a slot that nobody reads" });
    const held = metric(first, "ReplicationLagBytes").at(-1) as number;
    await eventually(() => (metric(first, "ReplicationLagBytes").at(-1) as number) > held, {
      what: "more lag",
    });
    const status = b.command("status", "--json");
    expect(await status.ended).toBe(1);
    const told = status.lines.find((line) => line.startsWith("{")) ?? status.lines.join("\n");
    expect(JSON.parse(told)).toMatchObject({
      captures: [{ state: "PAUSED", paused: { by: "ada" }, figures: { walHeldBytes: expect.any(Number) } }],
      problems: [
        expect.objectContaining({
          message: expect.stringContaining("the server keeps WAL for it WITHOUT A BOUND"),
          command: expect.stringContaining("capture resume"),
        }),
      ],
    });
    expect(metric(first, "Changes").reduce((sum, added) => sum + added, 0)).toBe(inStream);

    // A deploy: the new task stands still too, and the old one ends in order.
    const second = b.capture(often);
    await second.printed(PAUSED);
    first.signal("SIGTERM");
    expect(await first.ended).toBe(0);
    second.signal("SIGKILL");
    await second.ended;
    const third = b.capture(often);
    await third.printed(PAUSED);
    expect(await b.walsender()).toBeNull();
    expect(await b.written()).toHaveLength(inStream);
    writing = false;
    await load;

    expect((await verb(b, "resume")).text).toMatch(/Capture goes on within 5 s.*by ada/s);
    await third.printed("streaming from slot");
    await b.reached(last);
    await b.insert(last + 1, last + 20);
    await b.reached(last + 20);
    third.signal("SIGTERM");
    expect(await third.ended).toBe(0);
    expect(await consumed(b)).toEqual(range(1, last + 20));
    expect(b.consumer.reports[0]).toMatchObject({ gaps: 0 });
    // Behind the pause its counters begin anew, and none goes back.
    for (const task of [first, third]) expect(Math.min(...metric(task, "Changes"))).toBeGreaterThanOrEqual(0);
  });

  test("paused while one task streams and another waits for the lease: both stand still, and one goes on", async () => {
    const b = await bench();
    const lease = { TRIBUTARY_LEASE_MS: "600000" };
    const old = b.capture(lease);
    await old.printed("streaming from slot");
    const next = b.capture(lease);
    await next.printed("waiting for the capture lease");
    await b.insert(1, 10);
    expect((await verb(b, "pause", "--by", "ada")).code).toBe(0);
    for (const task of [old, next]) await task.printed(PAUSED);
    await b.insert(11, 20);
    // Whoever is ended while it stands still ends in order, and holds nothing.
    old.signal("SIGTERM");
    expect(await old.ended).toBe(0);
    expect((await verb(b, "resume")).code).toBe(0);
    await next.printed("streaming from slot");
    await b.reached(20);
    next.signal("SIGTERM");
    expect(await next.ended).toBe(0);
    expect(await consumed(b)).toEqual(range(1, 20));
  });

  test("of two slots, the task of the second tells of a paused consumer while the first one's is down", async () => {
    const b = await CaptureBench.create(aws(), await freshDatabase(server()), { source: { slots: 2 } });
    cleanups.push(() => b.end());
    await setPause(place(b), { consumer: b.consumer.name }, ADA);
    const second = b.capture({ TRIBUTARY_SLOT: "2", TRIBUTARY_METRICS_SECONDS: "1" });
    await second.printed('"PauseRetentionUsed":');
    second.signal("SIGTERM");
    expect(await second.ended).toBe(0);
  });

  test("a consumer that has left the definition is resumed, and one that never was in it is not", async () => {
    const b = await bench();
    await setPause(place(b), { consumer: "gone" }, ADA);
    const resume = async (name: string) => {
      const command = b.run({}, "consumer", "resume", "--consumer", name);
      return { code: await command.ended, text: command.lines.join("\n") };
    };
    expect(await resume("never")).toMatchObject({
      code: 2,
      text: expect.stringContaining("name one of the definition's"),
    });
    expect(await resume("gone")).toMatchObject({
      code: 0,
      text: expect.stringContaining("gone goes on where it stopped"),
    });
    expect(await readPauses(place(b))).toEqual({ capture: undefined, consumers: new Map() });
  });

  test("a backfill that is asked for while capture is paused begins behind it, and reads every row", async () => {
    const b = await bench();
    await b.client.query("INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 3000) n");
    const task = b.capture();
    await task.printed("streaming from slot");
    const backfill = async (...words: string[]) => {
      const command = b.run({}, "backfill", ...words);
      await command.ended;
      return command.lines.join("\n");
    };
    expect((await verb(b, "pause", "--by", "ada")).code).toBe(0);
    await backfill("start", "--table", "public.orders");
    expect(await backfill("status", "--json")).toContain('"status":"requested"');
    expect((await verb(b, "resume")).code).toBe(0);
    await eventually(async () => (await backfill("status", "--json")).includes('"status":"done"'), {
      what: "the end of the backfill",
      deadlineMs: 60_000,
    });
    const ids = new Set((await b.written()).map(({ id }) => id));
    expect(range(1, 3000).filter((id) => !ids.has(id))).toEqual([]);
  });
});
