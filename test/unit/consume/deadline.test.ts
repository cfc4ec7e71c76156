import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { HandlerTimeoutError } from "../../../lib/consume/api/handler-errors.ts";
import { Deadline } from "../../../lib/consume/run/deadline.ts";

describe("the deadline of an invocation", () => {
  it("keeps the process alive while it runs, and not when it is cleared", () => {
    const file = new URL("../../../lib/consume/run/deadline.ts", import.meta.url).href;
    const source = `
      const { Deadline } = await import(${JSON.stringify(file)});
      const cleared = new Deadline(60_000);
      cleared.clear();
      const deadline = new Deadline(300);
      process.on("exit", (code) => console.log("exit", code));
      try { await deadline.bound(new Promise(() => {})); } catch (error) { console.log(error.code); }
      deadline.clear();
    `;
    const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", source], {
      encoding: "utf8",
    });
    expect(stdout).toBe("HANDLER_TIMEOUT\nexit 0\n");
  });

  it("bounds also what begins when the wait for calls is over", async () => {
    const deadline = new Deadline(40);
    await expect(deadline.bound(new Promise(() => {}))).rejects.toBeInstanceOf(HandlerTimeoutError);
    await expect(deadline.bound(new Promise(() => {}))).rejects.toBeInstanceOf(HandlerTimeoutError);
    deadline.clear();
  });

  it.each([Number.POSITIVE_INFINITY, 2 ** 40])("may be %d ms away", async (remainingMs) => {
    const deadline = new Deadline(remainingMs);
    await new Promise((resolve) => setImmediate(resolve));
    expect([deadline.hasAborted, deadline.share()]).toEqual([false, "fair"]);
    deadline.clear();
  });

  it.each([0, -1, Number.NaN])("is over at once with %d ms", async (remainingMs) => {
    const deadline = new Deadline(remainingMs);
    expect(deadline.share()).toBe("none");
    if (!deadline.end.aborted) await once(deadline.end, "abort");
    deadline.clear();
  });

  it("has aborted for a call that begins when it is over", async () => {
    const deadline = new Deadline(40);
    await once(deadline.work, "abort");
    expect(deadline.callSignal().reason).toBeInstanceOf(HandlerTimeoutError);
    deadline.clear();
  });

  it("gives no two of many calls a long list of listeners", async () => {
    const deadline = new Deadline(60);
    const aborted = new Set<number>();
    const signals = new Map<AbortSignal, number>();
    for (let i = 0; i < 5_000; i++) {
      const signal = deadline.callSignal();
      signals.set(signal, (signals.get(signal) ?? 0) + 1);
      signal.addEventListener("abort", () => aborted.add(i));
    }
    expect(Math.max(...signals.values())).toBeLessThan(1_000);
    if (!deadline.end.aborted) await once(deadline.end, "abort");
    expect(aborted.size).toBe(5_000);
    expect(deadline.callSignal().aborted).toBe(true);
    deadline.clear();
  });
});
