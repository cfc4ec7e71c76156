import { afterEach, expect } from "vitest";
import { emulatedAws } from "../../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../../postgres/server.ts";
import { CaptureBench, type Program } from "../capture-bench.ts";
import { becomesHealthy, onCall, runPrinted, sound, whatMends } from "./on-call.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  async function make(options: Parameters<typeof CaptureBench.create>[2] = {}): Promise<CaptureBench> {
    const bench = await CaptureBench.create(aws(), await freshDatabase(server()), options);
    cleanups.push(() => bench.end());
    await sound(bench);
    return bench;
  }

  async function started(bench: CaptureBench, environment = {}): Promise<Program> {
    const task = bench.capture(environment);
    await task.printed("streaming from slot");
    return task;
  }

  async function stopped(task: Program): Promise<void> {
    task.signal("SIGTERM");
    expect(await task.ended).toBe(0);
  }

  onCall(2, async (row) => {
    const bench = await make();
    const task = await started(bench);
    await bench.insert(1, 2);
    await bench.reached(2);
    await stopped(task);
    await bench.client.query("SELECT pg_drop_replication_slot($1)", [bench.slot]);
    expect(await bench.capture().ended).toBe(2);
    const mends = await whatMends(row, bench);
    await runPrinted(bench, mends);
    await started(bench);
    await bench.insert(3, 3);
    await bench.reached(3);
    await becomesHealthy(bench);
  });
});
