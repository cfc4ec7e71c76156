import { rm, writeFile } from "node:fs/promises";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { DevProject, interrupt } from "./dev-project.ts";

const DEFINITION = `
import { definePipeline, postgres } from "tributary-cdc/pipeline";
export default definePipeline({
  name: "mine",
  source: postgres({ tables: ["public.orders"] }),
  consumers: [{ name: "orders", entry: "functions/orders.ts", topics: ["*.public.orders"], attempts: 2 }],
});
`;

/** Refuses the key 2 until the file healed.txt is there: what another deployment would mend, without dev noticing an edit. */
const HANDLER = `
import { appendFileSync, existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { consumer, Operation } from "tributary-cdc";

const here = (name: string) => fileURLToPath(new URL("../../../../" + name, import.meta.url));
const all = [Operation.Create, Operation.Update, Operation.Delete];

function chargeOf(id: number): void {
  if (id === 2 && !existsSync(here("healed.txt"))) throw new RangeError("no charge for order " + id);
}

export const handler = consumer("orders")
  .on("*.public.orders", all, (event: { readonly row: { readonly id: number; readonly note: string } }) => {
    chargeOf(event.row.id);
    appendFileSync(here("seen.txt"), event.row.id + " " + event.row.note + "\\n");
  })
  .handler();
`;

describe("dead letters from another terminal", () => {
  withPostgres((server) => {
    let project: DevProject;
    let client: pg.Client | undefined;
    afterEach(async () => {
      await client?.end();
      client = undefined;
      await project.remove();
    });

    const dlq = (...args: readonly string[]) => project.run(["dlq", ...args]).finished;

    it("list, show, redrive and discard speak to tributary dev: from the alarm to a quiet queue", async () => {
      const url = await freshDatabase(server());
      client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query("CREATE TABLE orders (id int PRIMARY KEY, note text)");
      project = await DevProject.make({ "tributary.config.ts": DEFINITION, "functions/orders.ts": HANDLER });
      const run = await project.dev("--database-url", url);
      expect(await dlq("list")).toMatchObject({ code: 0, stdout: "No open dead letters.\n" });

      await client.query("INSERT INTO orders VALUES (1, 'a'), (2, 'b')");
      await client.query("UPDATE orders SET note = 'c' WHERE id = 2");
      await client.query("DELETE FROM orders WHERE id = 2");
      await eventually(
        async () => (await dlq("list", "--consumer", "orders", "--json")).stdout.includes('"waiting":2'),
        { what: () => run.printed(), deadlineMs: 60_000 },
      );
      const list = await dlq("list");
      expect(list).toMatchObject({ code: 1, stderr: expect.stringContaining("speaking to tributary dev") });
      expect(list.stdout).toMatch(
        /^orders +mine\.public\.orders\/\d+ +2 +\w{34} +RangeError +2 +\S+Z +2 +parked$/m,
      );
      const position = /\w{34}/.exec(list.stdout)?.[0] ?? "";

      const shown = await dlq("show", "--consumer", "orders", "--key", "2");
      expect(shown, shown.stderr).toMatchObject({ code: 0 });
      expect(shown.stdout).toContain("insert of public.orders");
      expect(shown.stdout).toMatch(/ {4}note +"b"/);
      expect(shown.stdout).toContain("RangeError: no charge for order 2");
      expect(shown.stdout).toMatch(/at chargeOf \(/);
      expect(shown.stdout).toMatch(
        /2 changes of its key wait:\n {4}\w{34} {2}update of public\.orders\n {4}\w{34} {2}delete of/,
      );
      const json = await dlq("show", "--consumer", "orders", "--position", position, "--json");
      expect(JSON.parse(json.stdout)).toMatchObject({
        event: { after: { id: 2, note: "b" } },
        waitingCount: 2,
      });
      // What it prints to mend it runs as it stands there.
      const command = / {2}npm run -s tributary -- (dlq redrive .*)$/m.exec(shown.stdout)?.[1] ?? "";
      const failed = await project.run(command.split(" ")).finished;
      expect(failed).toMatchObject({
        code: 1,
        stdout: expect.stringMatching(/failed again \(RangeError, \d calls\)/),
      });
      expect(failed.stderr).toContain("1 message stays in the dead-letter queue");

      await writeFile(project.path("healed.txt"), "");
      const mended = await project.run(command.split(" ")).finished;
      expect(mended, mended.stderr).toMatchObject({
        code: 0,
        stdout: expect.stringContaining("3 changes took effect"),
      });
      expect(mended.stderr).toContain("1 message whose change is through was deleted");
      expect(await dlq("list")).toMatchObject({ code: 0, stdout: "No open dead letters.\n" });
      expect(await project.read("seen.txt")).toBe(
        "1 a\n2 b\n2 c\n2 c\n".replace("2 c\n2 c", "2 c\n2 undefined"),
      );

      // Given up knowingly.
      await rm(project.path("healed.txt"));
      await client.query("INSERT INTO orders VALUES (2, 'x')");
      await eventually(async () => (await dlq("list")).code === 1, {
        what: () => run.printed(),
        deadlineMs: 60_000,
      });
      const unasked = await dlq("discard", "--consumer", "orders", "--key", "2");
      expect(unasked).toMatchObject({ code: 2, stderr: expect.stringContaining("--yes") });
      expect(unasked.stdout).toContain("Gives up the insert of public.orders");
      expect((await dlq("list")).code).toBe(1);
      const given = await dlq("discard", "--consumer", "orders", "--key", "2", "--yes");
      expect(given, given.stderr).toMatchObject({
        code: 0,
        stdout: expect.stringContaining("1 changes given up"),
      });
      expect(await dlq("list")).toMatchObject({ code: 0 });
      const twice = await dlq("discard", "--consumer", "orders", "--key", "2", "--yes");
      expect(twice).toMatchObject({
        code: 1,
        stderr: expect.stringContaining("no open dead letter of key 2"),
      });

      // What cannot be is said before anything is touched.
      const wrong = [
        ["show", "--consumer", "orders"],
        ["show", "--key", "1"],
        ["show", "--consumer", "ordrs", "--key", "1"],
        ["discard", "--consumer", "orders", "--capture", "--position", position],
        ["redrive", "--consumer", "orders", "--all", "--key", "1"],
        ["redrive"],
      ];
      const codes = await Promise.all(wrong.map(async (args) => [args.join(" "), (await dlq(...args)).code]));
      expect(codes).toEqual(wrong.map((args) => [args.join(" "), 2]));
      expect((await interrupt(run)).code).toBe(0);
    });
  });
});
