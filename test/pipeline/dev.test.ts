import { stat } from "node:fs/promises";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { DevProject, interrupt, says } from "./dev-project.ts";

const DEFINITION = `
import { definePipeline, postgres } from "tributary-cdc/pipeline";
export default definePipeline({
  name: "mine",
  source: postgres({ tables: ["public.orders"] }),
  consumers: [{ name: "orders", entry: "functions/orders.ts", topics: ["*.public.orders"], batchSize: 10 }],
});
`;

/** Writes a line for each change to a file of the project; with a word before it, and refusing what `refuses` says. */
const handler = (word: string, refuses = "false") => `
import { appendFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { consumer, Operation } from "tributary-cdc";

const all = [Operation.Create, Operation.Update, Operation.Delete];
const file = fileURLToPath(new URL("../../../../seen.txt", import.meta.url));

export const handler = consumer("orders")
  .on("*.public.orders", all, (event: { readonly row: { readonly id: number } }) => {
    const { id } = event.row;
    if (${refuses}) throw new Error("refused by the handler");
    appendFileSync(file, "${word} " + id + "\\n");
  })
  .handler();
`;

describe("tributary dev on a database of this machine", () => {
  withPostgres((server) => {
    let project: DevProject;
    let client: pg.Client | undefined;
    afterEach(async () => {
      await client?.end();
      client = undefined;
      await project.remove();
    });

    async function start(files: Readonly<Record<string, string>> = {}) {
      const url = await freshDatabase(server());
      client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query("CREATE TABLE orders (id int PRIMARY KEY)");
      project = await DevProject.make({
        "tributary.config.ts": DEFINITION,
        "functions/orders.ts": handler("first"),
        ...files,
      });
      return { url, client };
    }
    const seen = async () => (await project.read("seen.txt")).split("\n").slice(0, -1);
    const isSeen = (...lines: readonly string[]) =>
      eventually(async () => hasAll(await seen(), lines), {
        what: lines.join(", "),
      });

    it("applies what failed before Ctrl-C once the handler is mended, and takes a change of the handler while it runs", async () => {
      const { url, client } = await start({ "functions/orders.ts": handler("first", "id === 2") });
      const first = await project.dev("--database-url", url);
      await client.query("INSERT INTO orders VALUES (1), (2), (3)");
      await isSeen("first 1", "first 3");
      await eventually(() => /dead [1-9]/.test(first.printed()), { what: () => first.printed() });
      // Before it is a dead letter it has been told, by the lines of the source.
      expect(first.printed()).toMatch(
        /failed on public\.orders, attempt 1 of 3 at \w+:\n {2}Error: refused by the handler\n {6}at .*functions\/orders\.ts:12:\d+/,
      );
      expect((await interrupt(first)).code).toBe(0);
      expect((await stat(project.path(".tributary"))).mode & 0o777).toBe(0o700);
      // While nothing runs the slot keeps what is changed, also over a --clean that could drop nothing.
      await client.query("INSERT INTO orders VALUES (4)");
      const wrong = Object.assign(new URL(url), { password: "guessed" }).href;
      const clean = await project.run(["dev", "--clean", "--database-url", wrong]).finished;
      expect(clean).toMatchObject({ code: 1, stderr: expect.stringContaining("POSTGRES_AUTHENTICATION") });

      await project.write({ "functions/orders.ts": handler("second") });
      const second = await project.dev("--database-url", url);
      await isSeen("second 2", "second 4");
      await project.write({ "functions/orders.ts": "export const handler = (" });
      await says(second, /functions\/orders\.ts:1:\d+: /);
      await client.query("INSERT INTO orders VALUES (5)");
      await isSeen("second 5");
      await project.write({
        "functions/orders.ts": `throw new Error("not so");\nexport const handler = 1;\n`,
      });
      await says(second, /the code before goes on running: .*not so\s[\s\S]*functions\/orders\.ts:1:/);
      await client.query("INSERT INTO orders VALUES (6)");
      await isSeen("second 6");
      const typo = handler("third").replace(".handler()", '.on("public.ordrs", all, () => {})\n  .handler()');
      await project.write({ "functions/orders.ts": typo });
      await says(second, "orders: reloaded");
      await says(second, 'no captured table matches "public.ordrs"; did you mean "public.orders"?');
      await client.query("INSERT INTO orders VALUES (7)");
      await isSeen("third 7");
      expect((await interrupt(second)).code).toBe(0);
      expect(await seen()).toHaveLength(7);
    });

    it("ends at Ctrl-C also while a handler does not finish loading, and goes on from there", async () => {
      const hangs = `await new Promise((loaded) => setTimeout(loaded, 600_000));\n${handler("never")}`;
      const { url, client } = await start({ "functions/orders.ts": hangs });
      const run = project.run(["dev", "--database-url", url]);
      await says(run, "starting capture and orders");
      let ended = false;
      void interrupt(run).then(({ code }) => {
        ended = code === 0;
      });
      await eventually(() => ended, { what: () => run.printed(), deadlineMs: 30_000 });
      await project.write({ "functions/orders.ts": handler("first") });
      const second = await project.dev("--database-url", url);
      await client.query("INSERT INTO orders VALUES (1)");
      await isSeen("first 1");
      expect((await interrupt(second)).code).toBe(0);
    });

    it("answers the verbs from another terminal, refuses a second run, and leaves nothing after --clean", async () => {
      const { url, client } = await start({ "functions/orders.ts": handler("first", "id === 2") });
      const password = new URL(url).password;
      // Somebody else's, on the same server.
      const theirs = "tributary_dev_mine_c0ffee";
      await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [theirs]);
      const run = await project.dev("--database-url", url);
      const second = await project.run(["dev", "--database-url", url], {}, "functions").finished;
      expect(second).toMatchObject({ code: 1, stderr: expect.stringContaining(`process ${run.pid}`) });
      expect(second.stderr).toContain("DEV_RUNNING");

      await client.query("INSERT INTO orders VALUES (1), (2)");
      await eventually(() => /dead [1-9]/.test(run.printed()), { what: () => run.printed() });
      const file = await project.read(".tributary/dev.json");
      expect(file).not.toContain(password);
      expect((await stat(project.path(".tributary/dev.json"))).mode & 0o777).toBe(0o600);
      const whole = await project.run(["status"], {}, "functions").finished;
      expect(whole).toMatchObject({
        code: 1,
        stdout: expect.stringMatching(/RUNNING[\s\S]*^! consumer orders\n {4}1 key has open dead letters/m),
      });
      const status = await project.run(["consumer", "status"], {}, "functions").finished;
      expect(status).toMatchObject({
        code: 1,
        stdout: expect.stringContaining("1 keys with open dead letters"),
      });
      expect(status.stderr).toContain(`speaking to tributary dev (process ${run.pid})`);
      const capture = await project.run(["capture", "status"]).finished;
      expect(capture, capture.stderr).toMatchObject({ code: 0 });
      const redrive = await project.run(["redrive", "--consumer", "orders", "--dry-run"]).finished;
      expect(redrive, redrive.stderr).toMatchObject({ code: 0, stdout: expect.stringContaining("key 2") });
      // Who has settings means another place.
      const elsewhere = await project.run(["consumer", "status"], { TRIBUTARY_STREAM: "theirs" }).finished;
      expect(elsewhere).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("TRIBUTARY_STREAM is set"),
      });

      expect((await interrupt(run)).code).toBe(0);
      const gone = await project.run(["consumer", "status"]).finished;
      expect(gone.code).toBe(2);
      expect(gone.stderr).not.toContain("speaking to");
      const names = async () => {
        const { rows } = await client.query<{ name: string }>(
          "SELECT slot_name::text AS name FROM pg_replication_slots WHERE database = current_database() UNION ALL SELECT pubname::text FROM pg_publication",
        );
        return rows.map(({ name }) => name).sort();
      };
      const { id } = JSON.parse(await project.read(".tributary/state.json"));
      expect(await names()).toEqual([theirs, `tributary_dev_mine_${id}`, `tributary_dev_mine_${id}`].sort());
      const clean = await project.run(["dev", "--clean"], { DATABASE_URL: url }).finished;
      expect(clean, clean.stderr).toMatchObject({
        code: 0,
        stdout: expect.stringContaining(`dropped tributary_dev_mine_${id}`),
      });
      expect(clean.stdout).toMatch(new RegExp(`${theirs} .* of WAL  abandoned for 0 min`));
      expect(await names()).toEqual([theirs]);
      await client.query("SELECT pg_drop_replication_slot($1)", [theirs]);

      // What is applied counts on: the next run begins a new epoch, and sees what is changed from then on.
      await client.query("INSERT INTO orders VALUES (3)");
      const again = await project.dev("--database-url", url);
      await client.query("INSERT INTO orders VALUES (4)");
      await isSeen("first 4");
      expect(await seen()).not.toContain("first 3");
      expect((await interrupt(again)).code).toBe(0);
    });
  });
});

function hasAll(found: readonly string[], wanted: readonly string[]): boolean {
  return wanted.every((line) => found.includes(line));
}
