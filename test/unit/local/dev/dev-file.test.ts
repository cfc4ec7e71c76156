import { cp, mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { withoutPassword } from "../../../../lib/local/dev/dev-file.ts";
import { findDevRun } from "../../../../lib/local/dev/dev-file-format.ts";
import { ownIdentity } from "../../../../lib/local/process-identity.ts";

let folder: string;
let mine: string;
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "tributary-file-")));
  mine = join(folder, "mine");
  await mkdir(join(mine, "functions"), { recursive: true });
  await mkdir(join(mine, ".tributary"));
  await writeFile(join(mine, "package.json"), "{}");
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function runs(identity = ownIdentity()): Promise<void> {
  const run = {
    ...{ ...identity, project: mine, pipeline: "shop", environment: {}, consumers: {} },
    database: { url: "postgres://me@localhost/shop", needsPassword: false },
  };
  await writeFile(join(mine, ".tributary", "dev.json"), JSON.stringify(run));
}

describe("what a run of tributary dev says of itself", () => {
  it("is found in the project's folders, of the very process that wrote it alone", async () => {
    await runs();
    expect(await findDevRun(join(mine, "functions"))).toMatchObject({ project: mine });
    await runs({ pid: process.pid, started: "1" });
    expect(await findDevRun(mine)).toBeUndefined();
  });

  it("is not found in a copy of the folder, nor in a project of its own below", async () => {
    await runs();
    const copy = join(folder, "copy");
    await cp(mine, copy, { recursive: true });
    expect(await findDevRun(copy)).toBeUndefined();
    const other = join(mine, "packages", "other", "functions");
    await mkdir(other, { recursive: true });
    await writeFile(join(other, "..", "package.json"), "{}");
    expect(await findDevRun(other)).toBeUndefined();
  });

  it("holds no password, however odd", () => {
    for (const [url, without] of [
      ["postgres://me:secret@localhost/shop", "postgres://me@localhost/shop"],
      ["postgres://me:sec@ret:s@localhost:5432/shop", "postgres://me@localhost:5432/shop"],
      [
        "postgres://me:sec%2Fret@[::1]/shop?application_name=a:b@c",
        "postgres://me@[::1]/shop?application_name=a:b@c",
      ],
      ["postgres://me:a:b@one:1,two:2/shop", "postgres://me@one:1,two:2/shop"],
      [
        "postgres://me@localhost/shop?application_name=a:b@c",
        "postgres://me@localhost/shop?application_name=a:b@c",
      ],
    ] as const)
      expect(withoutPassword(url)).toBe(without);
  });
});
