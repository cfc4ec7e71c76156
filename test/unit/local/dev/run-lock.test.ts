import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type RunLock, takeRunLock } from "../../../../lib/local/dev/run-lock.ts";
import { ownIdentity } from "../../../../lib/local/process-identity.ts";

let directory: string;
let file: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-lock-"));
  file = join(directory, "lock");
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

const isOurs = (lock: Awaited<ReturnType<typeof takeRunLock>>): lock is RunLock => "release" in lock;

describe("the lock of a run", () => {
  it("is one process's alone until it is released, and leaves no file behind", async () => {
    const first = await takeRunLock(file);
    expect(first).toMatchObject({ wasHeld: false });
    expect(await takeRunLock(file)).toEqual(ownIdentity());
    if (isOurs(first)) await first.release();
    expect(await readdir(directory)).toEqual([]);
    expect(isOurs(await takeRunLock(file))).toBe(true);
  });

  it("is taken over from a process that is gone, by one alone of many that come at once", async () => {
    const child = spawn(process.execPath, ["-e", ""]);
    const dead = { pid: child.pid, started: "1", token: "0123abcd" };
    await once(child, "exit");
    for (let round = 0; round < 20; round++) {
      await writeFile(file, JSON.stringify(dead));
      const taken = await Promise.all(Array.from({ length: 8 }, () => takeRunLock(file)));
      const ours = taken.filter(isOurs);
      expect(ours).toHaveLength(1);
      expect(ours[0]?.wasHeld).toBe(true);
      expect(await readdir(directory)).toEqual(["lock"]);
      await ours[0]?.release();
    }
  });

  it("is taken over from a process whose id another one has now", async () => {
    await writeFile(file, JSON.stringify({ pid: process.pid, started: "1", token: "0123abcd" }));
    expect(isOurs(await takeRunLock(file))).toBe(true);
    expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject(ownIdentity());
  });

  it("is taken over where who took it over before died in the middle", async () => {
    const dead = { pid: process.pid, started: "1" };
    await writeFile(file, JSON.stringify({ ...dead, token: "0123abcd" }));
    await writeFile(`${file}.0123abcd`, JSON.stringify({ ...dead, token: "89abcdef" }));
    expect(isOurs(await takeRunLock(file))).toBe(true);
    expect(await readdir(directory)).toEqual(["lock"]);
  });
});
