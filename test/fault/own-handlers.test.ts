import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { expect, test } from "vitest";
import { runChecker } from "../../lib/testing/checker/checker.ts";
import definition from "./own/pipeline.ts";

test("a user's own tables, workload and handler are checked", async () => {
  const directory = await mkdtemp(join(tmpdir(), "tributary-own-"));
  const file = join(directory, "lines");
  try {
    const verdict = await runChecker({
      seed: 1,
      recoverMs: 120_000,
      pipeline: {
        definition,
        file: fileURLToPath(new URL("own/pipeline.ts", import.meta.url)),
        schema: "CREATE TABLE items (id int PRIMARY KEY, name text)",
        environment: { LINES_FILE: file },
        workload: async (databaseUrl, _seed, until) => {
          const client = new pg.Client({ connectionString: databaseUrl });
          await client.connect();
          for (let id = 1; id <= 50 || !until.aborted; id++) {
            await client.query("INSERT INTO items VALUES ($1, 'a')", [id]);
            await client.query("UPDATE items SET name = 'b', id = -id WHERE id = $1", [id]);
            await delay(10);
          }
          await client.end();
        },
        sinks: {
          lines: {
            kind: "append",
            effects: async () => {
              const text = await readFile(file, "utf8").catch(() => "");
              return text
                .split("\n")
                .filter((line) => line !== "")
                .map((line) => {
                  const [topic = "", partition, position = "", invocation = ""] = line.split(" ");
                  return { topic, partition: Number(partition), position, invocation };
                });
            },
          },
        },
      },
      faults: async (rig) => {
        await delay(1_000);
        rig.link.replicationLinks[0]?.cutInsideCopyData(3);
        await delay(1_000);
      },
    });
    expect(verdict).toMatchObject({ ok: true, confirmedTooEarly: [] });
    const { events, lost, extra, outOfOrder, duplicates } = verdict.sinks.lines ?? {};
    expect(events).toBeGreaterThanOrEqual(150);
    expect({ lost, extra, outOfOrder, duplicates }).toEqual({
      lost: 0,
      extra: 0,
      outOfOrder: 0,
      duplicates: 0,
    });
  } finally {
    await rm(directory, { recursive: true });
  }
});
