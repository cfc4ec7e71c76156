import { readFile } from "node:fs/promises";
import pg from "pg";
import { afterEach, expect, it } from "vitest";
import { removeEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { eventually } from "../eventually.ts";
import { DevProject, interrupt, says } from "./dev-project.ts";

const FILES = {
  "cdk/pipeline.ts": `
    import { definePipeline, postgres } from "tributary-cdc/pipeline";
    export default definePipeline({
      name: "killed",
      source: postgres({ tables: ["public.counters"] }),
      consumers: [{ name: "counters", entry: "functions/counters.ts", topics: ["*"], batchSize: 20 }],
    });`,
  "functions/counters.ts": `
    import { appendFileSync } from "node:fs";
    import { fileURLToPath } from "node:url";
    import { consumer, Operation } from "tributary-cdc";
    const file = fileURLToPath(new URL("../../../../seen.txt", import.meta.url));
    export const handler = consumer("counters")
      .on("*.public.counters", [Operation.Create, Operation.Update], (event: { readonly row: { readonly id: number; readonly n: number } }) => {
        appendFileSync(file, event.row.id + " " + event.row.n + "\\n");
      })
      .handler();`,
  "schema.sql": "CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL);\n",
};
const KEYS = 5;

let project: DevProject | undefined;
afterEach(async () => {
  const file = await project?.read(".tributary/state.json");
  await project?.remove();
  const { dataDirectory } = file ? JSON.parse(file) : {};
  if (dataDirectory) await removeEmbeddedPostgres(dataDirectory);
});

it("loses nothing and keeps the order of each key over kill -9 at any moment, the embedded database's too", async () => {
  project = await DevProject.make(FILES);
  const mine = project;
  const url = async () => {
    const { database } = JSON.parse(await mine.read(".tributary/dev.json"));
    const place = new URL(database.url);
    place.password = await readFile(database.passwordFile, "utf8");
    return place.href;
  };
  const seen = async () => (await mine.read("seen.txt")).split("\n").slice(0, -1);
  let committed = 0;
  for (let round = 1; round <= 3; round++) {
    const run = await project.dev();
    const client = new pg.Client({ connectionString: await url() });
    client.on("error", () => {});
    await client.connect();
    const before = (await seen()).length;
    let over = false;
    const writing = (async () => {
      while (!over) {
        const n = committed + 1;
        await client.query(
          "INSERT INTO counters SELECT g, $1 FROM generate_series(1, $2) g ON CONFLICT (id) DO UPDATE SET n = $1",
          [n, KEYS],
        );
        committed = n;
      }
    })().catch(() => {});
    // In the middle: something took effect, more is under way.
    await eventually(async () => (await seen()).length > before + 20 * round, { what: "effects" });
    if (round < 3) {
      run.kill("SIGKILL");
      await run.finished;
      await writing;
      continue;
    }
    over = true;
    await writing;
    const { rows } = await client.query("SELECT max(n) AS n FROM counters");
    const last = rows[0].n as number;
    // An answer may be lost with the process.
    expect([committed, committed + 1]).toContain(last);
    await eventually(async () => (await seen()).filter((line) => line.endsWith(` ${last}`)).length >= KEYS, {
      what: "the last change of each key",
    });
    await client.end();
    await says(run, /dead 0/);
    expect((await interrupt(run)).code).toBe(0);
    for (let key = 1; key <= KEYS; key++) {
      const versions = (await seen())
        .filter((line) => line.startsWith(`${key} `))
        .map((line) => Number(line.split(" ")[1]));
      // What came again after a kill stands behind its first effect.
      const first = [...new Set(versions)];
      expect(first).toEqual(Array.from({ length: last }, (_, i) => i + 1));
    }
  }
});
