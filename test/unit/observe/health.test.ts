import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HealthBeat, isAlive, STALE_MS } from "../../../lib/telemetry/health.ts";
import { eventually } from "../../eventually.ts";

const PROGRAM = fileURLToPath(new URL("../../../functions/capture/health.ts", import.meta.url));
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-health-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function check(environment: Record<string, string>): Promise<number> {
  const env = { PATH: process.env.PATH, ...environment };
  const child = spawn(process.execPath, [PROGRAM], { env, stdio: "ignore" });
  const [code] = await once(child, "exit");
  return code as number;
}

describe("the health file", () => {
  it("is touched at once and again, and no more once stopped", async () => {
    const file = join(directory, "alive");
    const beat = new HealthBeat(file, (error) => expect.unreachable(error.message), 10);
    const touched = () =>
      stat(file).then(
        ({ mtimeMs }) => mtimeMs,
        () => undefined,
      );
    const first = await eventually(touched, { what: "the first beat" });
    await eventually(async () => ((await touched()) ?? 0) > first, { what: "another beat" });
    beat[Symbol.dispose]();
  });

  it("that cannot be written is told once, and then again only after it could be", async () => {
    const file = join(directory, "away", "alive");
    const failures: Error[] = [];
    using _beat = new HealthBeat(file, (error) => void failures.push(error), 5);
    await eventually(() => failures.length === 1, { what: "the failure" });
    await mkdir(join(directory, "away"));
    await eventually(() => isAlive(file), { what: "the file" });
    expect(failures).toHaveLength(1);
    // At once: a beat could put the file back while the directory is being emptied.
    await rename(join(directory, "away"), join(directory, "gone"));
    await eventually(() => failures.length === 2, { what: "the second failure" });
  });

  it("is fresh for a minute", async () => {
    const file = join(directory, "alive");
    expect(await isAlive(file)).toBe(false);
    await writeFile(file, "");
    const { mtimeMs } = await stat(file);
    expect(await isAlive(file, mtimeMs + STALE_MS - 1)).toBe(true);
    expect(await isAlive(file, mtimeMs + STALE_MS)).toBe(false);
  });
});

describe("the container's health check", () => {
  it("passes with a fresh file, fails with an old one, none, or no name for it", async () => {
    const file = join(directory, "alive");
    expect(await check({ TRIBUTARY_HEALTH_FILE: file })).toBe(1);
    await writeFile(file, "");
    expect(await check({ TRIBUTARY_HEALTH_FILE: file })).toBe(0);
    const old = new Date(Date.now() - STALE_MS - 1000);
    await utimes(file, old, old);
    expect(await check({ TRIBUTARY_HEALTH_FILE: file })).toBe(1);
    expect(await check({})).toBe(1);
  });
});
