import { mkdtemp, rm, stat, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { isAlive, STALE_MS } from "../../lib/telemetry/health.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  test("a capture task that lags without end is healthy; one that hangs is not", async () => {
    const directory = await mkdtemp(join(tmpdir(), "tributary-health-"));
    cleanups.push(() => rm(directory, { recursive: true, force: true }));
    const file = join(directory, "alive");
    const b = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => b.end());
    const capture = b.capture({
      // Nobody answers there: nothing is ever stored.
      AWS_ENDPOINT_URL_KINESIS: "http://127.0.0.1:9",
      TRIBUTARY_HEALTH_FILE: file,
      TRIBUTARY_METRICS_SECONDS: "1",
    });
    await capture.printed("streaming from slot");
    await b.insert(1, 10);
    await eventually(
      () => capture.lines.some((line) => /"tributary":"capture".*"lagMs":[1-9]\d{3}/.test(line)),
      { what: "a lag" },
    );

    const grownOld = async () => {
      const old = new Date(Date.now() - STALE_MS - 1000);
      await utimes(file, old, old);
      return (await stat(file)).mtimeMs;
    };
    await grownOld();
    await eventually(() => isAlive(file), { what: "a beat while it lags" });

    capture.signal("SIGSTOP");
    const still = await grownOld();
    const other = join(directory, "other");
    const witness = b.capture({ TRIBUTARY_HEALTH_FILE: other });
    // As long as another process beats twice.
    await eventually(() => isAlive(other), { what: "the other's beat" });
    const first = (await stat(other)).mtimeMs;
    await eventually(async () => (await stat(other)).mtimeMs > first, { what: "its next beat" });
    expect((await stat(file)).mtimeMs).toBe(still);
    expect(await isAlive(file)).toBe(false);
    witness.signal("SIGKILL");

    capture.signal("SIGCONT");
    await eventually(() => isAlive(file), { what: "a beat after it was let go on" });
  });
});
