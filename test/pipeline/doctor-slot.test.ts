import { afterEach, expect, test } from "vitest";
import { readCaptureReports, writeCaptureReport } from "../../lib/state/capture-report.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";
import { sound } from "./on-call/on-call.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
const { signal } = new AbortController();

interface SlotCheck {
  readonly name: string;
  readonly status: string;
  readonly detail?: string;
  readonly problems?: readonly { readonly code: string; readonly message: string; readonly remedy: string }[];
}

withPostgres((server) => {
  test("doctor looks at the slot on the server: read, read by nobody though capture says it runs, gone", async () => {
    const bench = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => bench.end());
    await sound(bench);
    const look = async (): Promise<SlotCheck | undefined> => {
      const { ended, lines } = bench.command("doctor", "--json");
      await ended;
      const found = JSON.parse(lines.slice(lines.indexOf("{"), lines.lastIndexOf("}") + 1).join("\n")) as {
        checks: SlotCheck[];
      };
      return found.checks.find(({ name }) => name === "slot");
    };
    const task = bench.capture();
    await task.printed("streaming from slot");
    expect(await look()).toMatchObject({ status: "ok", detail: expect.stringContaining("read by process") });
    task.signal("SIGTERM");
    expect(await task.ended).toBe(0);

    const table = bench.environment.TRIBUTARY_STATE_TABLE as string;
    const place = { dynamodb: aws().dynamodb, table, pipeline: "shop", signal };
    const [stored] = await readCaptureReports(place);
    if (!stored?.report) throw new Error("no report");
    // A session that hangs: the task knows nothing of it yet.
    const running = { ...stored.report, state: "RUNNING" as const, at: Date.now(), everyMs: 60_000 };
    await writeCaptureReport({ ...place, slot: 1, seat: "holder" }, running, null, signal);
    expect(await look()).toMatchObject({
      status: "problem",
      problems: [{ code: "CAPTURE_SERVICE", message: expect.stringContaining("nobody reads from the slot") }],
    });

    await bench.client.query("SELECT pg_drop_replication_slot($1)", [bench.slot]);
    expect(await look()).toMatchObject({
      status: "problem",
      problems: [{ code: "SLOT_MISSING", remedy: expect.stringContaining("epoch new") }],
    });
  });
});
