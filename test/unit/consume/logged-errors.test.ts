import { describe, expect, it } from "vitest";
import { originOf } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { invocationOf, packed } from "./records.ts";

const ONE_CHANGE = invocationOf(packed([{ at: 1, after: null, row: { id: "1", card: "4111" } }]));

/** The log of a handler that quotes a row's value in what it throws. */
async function logOf(logErrors: boolean) {
  const consumer = await memoryConsumer(
    (c) =>
      c.on("public.orders", Operation.Create, ({ after }) => {
        throw new RangeError(`card ${after.card} is refused`);
      }),
    { attempts: 2, logErrors },
  );
  await consumer.handler(ONE_CHANGE, timeLeft());
  return consumer;
}

describe("what a handler threw", () => {
  it("stands in the log without its message, and in the dead letter with message and stack", async () => {
    const { lines, letters } = await logOf(false);
    const place = { table: "public.orders", topic: "shop.public.orders", attempts: 2, error: "RangeError" };
    expect(lines).toMatchObject([
      { ...place, attempt: 1, message: "a handler failed" },
      { ...place, attempt: 2, message: "a handler failed" },
      { ...place, attempt: 2, message: "a change went to the dead letters" },
    ]);
    expect(JSON.stringify(lines)).not.toMatch(/4111|logged-errors/);
    const { error } = JSON.parse(letters[0] ?? "") as { error: { message: string; stack: string } };
    expect(error.message).toBe("card 4111 is refused");
    expect(error.stack).toContain("logged-errors.test.ts");
  });

  it("stands in the log whole where the definition asks for that", async () => {
    const { lines } = await logOf(true);
    expect(lines).toHaveLength(3);
    for (const line of lines) {
      expect(line.errorMessage).toBe("card 4111 is refused");
      expect(line.stack).toContain("logged-errors.test.ts");
    }
  });

  it("stands there after a redrive that failed too", async () => {
    const { handler, lines } = await logOf(true);
    lines.length = 0;
    await handler({ tributary: "redrive" }, timeLeft());
    expect(lines[0]).toMatchObject({
      ...{ message: "a redriven change failed again", table: "public.orders", attempt: 4 },
      ...{ error: "RangeError", errorMessage: "card 4111 is refused" },
    });
    expect(lines[0]).not.toHaveProperty("chain");
    const quiet = await logOf(false);
    await quiet.handler({ tributary: "redrive" }, timeLeft());
    expect(quiet.lines.at(-2)).toMatchObject({ message: "a redriven change failed again" });
    expect(JSON.stringify(quiet.lines)).not.toMatch(/4111/);
  });

  it("has its bound there too", async () => {
    const { handler, lines } = await memoryConsumer(
      (c) =>
        c.on("*", Operation.Create, () => {
          throw Object.assign(new Error("m".repeat(1e6)), { stack: "s".repeat(1e6) });
        }),
      { logErrors: true },
    );
    await handler(ONE_CHANGE, timeLeft());
    for (const line of lines) expect(JSON.stringify(line).length).toBeLessThan(32 * 1024);
  });
});

describe("changes that no handler matches", () => {
  it("are named in the report, each kind once, and only where there are some", async () => {
    const { handler, reports } = await memoryConsumer((c) =>
      c.on("public.orders", Operation.Update, () => {}),
    );
    const changes = [
      { at: 1, after: null, op: "u" as const },
      { at: 2, after: 1, op: "c" as const },
      { at: 3, after: 2, op: "c" as const },
      { at: 4, after: 3, op: "c" as const, table: "ordrs" },
    ];
    await handler(invocationOf(packed(changes.slice(0, 1))), timeLeft());
    await handler(invocationOf(packed(changes)), timeLeft());
    expect(reports.map(({ unhandled, unmatched }) => ({ unhandled, unmatched }))).toEqual([
      { unhandled: 0, unmatched: undefined },
      { unhandled: 3, unmatched: ["public.orders create", "public.ordrs create"] },
    ]);
  });

  it("are named up to twenty", async () => {
    const { handler, reports } = await memoryConsumer((c) =>
      c.on("public.orders", Operation.Update, () => {}),
    );
    const changes = Array.from({ length: 25 }, (_, i) => ({ at: i + 1, after: i || null, table: `t${i}` }));
    await handler(invocationOf(packed(changes)), timeLeft());
    expect(reports[0]?.unhandled).toBe(25);
    expect(reports[0]?.unmatched).toHaveLength(20);
  });

  it("can be foreseen: a handler tells its patterns, each once", async () => {
    const { handler } = await memoryConsumer((c) =>
      c
        .on("public.orders", Operation.Update, () => {})
        .on("public.orders", Operation.Create, () => {})
        .onBatch("shop.sales.*", {}, () => {}),
    );
    expect(originOf(handler)?.patterns).toEqual(["public.orders", "shop.sales.*"]);
  });
});
