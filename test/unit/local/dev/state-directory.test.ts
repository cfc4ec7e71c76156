import { cp, mkdir, mkdtemp, readdir, readFile, realpath, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DevRunningError, DevStateOtherError } from "../../../../lib/local/dev/dev-errors.ts";
import { StateDirectory } from "../../../../lib/local/dev/state-directory.ts";

let folder: string;
let mine: string;
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "tributary-state-")));
  mine = join(folder, "mine");
  await mkdir(mine);
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

describe("the state directory of tributary dev", () => {
  it("is not gone on with in a copy of the project, whose slot and data are the original's, running or not", async () => {
    const original = await StateDirectory.open(mine);
    await original.update({ pipeline: "shop", dataDirectory: original.file("postgres"), ready: true });
    const copy = join(folder, "copy");
    await cp(mine, copy, { recursive: true });
    await expect(StateDirectory.open(copy)).rejects.toThrow(DevStateOtherError);
    await expect(StateDirectory.open(copy)).rejects.toThrow(`is a copy of ${original.path}`);
    const fresh = await StateDirectory.open(copy, { anyVersion: true });
    expect(fresh.state.id).not.toBe(original.state.id);
    expect(fresh.state).not.toHaveProperty("dataDirectory");
    await expect(StateDirectory.open(copy)).rejects.toThrow(DevRunningError);
    await fresh.begin();
    await fresh.close();
    await (await StateDirectory.open(copy)).close();

    await expect(StateDirectory.open(mine)).rejects.toThrow(DevRunningError);
    await original.close();
    const again = await StateDirectory.open(mine);
    expect(again.state).toEqual(original.state);
    await again.close();
  });

  it("moves with the project, and its data with it; what runs meanwhile stays the only run", async () => {
    const before = await StateDirectory.open(mine);
    await before.update({ dataDirectory: before.file("postgres") });
    const moved = join(folder, "moved");
    await rename(mine, moved);
    await expect(StateDirectory.open(moved)).rejects.toThrow(DevRunningError);
    await rename(moved, mine);
    await before.close();
    await rename(mine, moved);
    const after = await StateDirectory.open(moved);
    expect(after.state.id).toBe(before.state.id);
    expect(after.state.dataDirectory).toBe(join(moved, ".tributary", "postgres"));
    await after.close();
  });

  it("begins anew without touching what others have put there", async () => {
    const directory = await StateDirectory.open(mine);
    const { id } = directory.state;
    await mkdir(directory.file("aws", "sqs"), { recursive: true });
    await mkdir(directory.file("checkpoints"));
    await writeFile(directory.file("notes.txt"), "theirs");
    await directory.begin();
    expect(directory.state.id).not.toBe(id);
    expect(await readFile(directory.file("notes.txt"), "utf8")).toBe("theirs");
    expect(await readdir(directory.path)).not.toEqual(expect.arrayContaining(["aws"]));
    expect(await readdir(directory.path)).not.toEqual(expect.arrayContaining(["checkpoints"]));
    await directory.close();
  });
});
