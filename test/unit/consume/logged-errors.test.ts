import { afterEach, describe, expect, it, vi } from "vitest";
import { ClaimMissingError } from "../../../lib/change/record-errors.ts";
import { originOf } from "../../../lib/consume/api/consumer.ts";
import { errorFacts } from "../../../lib/consume/api/context.ts";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
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

describe("an error of ours", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it("stands in the log with what to do, and with the command that says more", async () => {
    const consumer = await memoryConsumer((c) =>
      c.on("public.orders", Operation.Create, () => {
        throw new SinkUnavailableError("search", new Error("card 4111"));
      }),
    );
    await consumer.handler(ONE_CHANGE, timeLeft());
    expect(consumer.lines[0]).toMatchObject({
      code: "SINK_UNAVAILABLE",
      remedy: "Bring it back before the stream's retention is over.",
      more: "npx tributary-cdc explain SINK_UNAVAILABLE",
    });
    expect(JSON.stringify(consumer.lines)).not.toContain("4111");
  });

  it("has its commands as they are typed for the stack, with consumer, topic and partition where they are known", () => {
    vi.stubEnv("TRIBUTARY_STACK_NAME", "Shop");
    const error = new ClaimMissingError({ bucket: "b", key: "k", bytes: 1, sha256: "" });
    const { remedy, more } = errorFacts(error, {
      consumer: "orders",
      topic: "shop.public.orders",
      partition: 3,
    });
    expect(remedy).toContain("npx tributary-cdc redrive --stack Shop --consumer orders.");
    expect(remedy).toContain(
      "npx tributary-cdc consumer accept-gap --stack Shop --consumer orders --topic 'shop.public.orders' --partition 3",
    );
    expect(more).toBe("npx tributary-cdc explain CLAIM_MISSING");
    expect(errorFacts(error).remedy).toContain("--consumer <consumer>");
  });

  it("is one only where it is: another's remedy stays out of the log", () => {
    const foreign = Object.assign(new Error("m"), { code: "E", remedy: "card 4111" });
    expect(errorFacts(foreign)).toEqual({ error: "Error", code: "E" });
    const hostile = Object.assign(new ClaimMissingError({ bucket: "b", key: "k", bytes: 1, sha256: "" }), {});
    Object.defineProperty(hostile, "remedy", {
      get() {
        throw new Error("4111");
      },
    });
    expect(errorFacts(hostile)).toEqual({ error: "ClaimMissingError", code: "CLAIM_MISSING" });
  });
});
