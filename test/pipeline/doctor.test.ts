import { DescribeTableCommand, ScanCommand } from "@aws-sdk/client-dynamodb";
import { GetQueueAttributesCommand } from "@aws-sdk/client-sqs";
import pg from "pg";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import * as z from "zod";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { DevProject, interrupt } from "./dev-project.ts";

const definition = (source = 'postgres({ tables: ["public.orders"], acceptUnboundedWal: true })') => `
import { definePipeline, postgres } from "tributary-cdc/pipeline";
export default definePipeline({
  name: "mine",
  source: ${source},
  consumers: [{ name: "orders", entry: "functions/orders.ts", topics: ["*"] }],
});
`;
const handler = (pattern = "public.orders") => `
import { consumer, Operation } from "tributary-cdc";
export const handler = consumer("orders").on("${pattern}", [Operation.Create], () => {}).handler();
`;

const diagnosis = z.object({
  healthy: z.boolean(),
  place: z.string().optional(),
  checks: z.array(
    z.object({
      name: z.string(),
      status: z.enum(["ok", "problem", "unchecked"]),
      problems: z.array(z.object({ code: z.string(), message: z.string(), remedy: z.string() })).default([]),
      why: z.string().default(""),
    }),
  ),
});

let project: DevProject;
beforeEach(async () => {
  project = await DevProject.make({ "tributary.config.ts": definition(), "functions/orders.ts": handler() });
});
afterEach(() => project.remove());

async function doctor(environment: Readonly<Record<string, string>> = {}, args: readonly string[] = []) {
  const { code, stdout, stderr } = await project.run(["doctor", "--json", ...args], environment).finished;
  const found = diagnosis.parse(JSON.parse(stdout || stderr));
  const check = (name: string) => found.checks.find((one) => one.name === name);
  const problems = found.checks.flatMap((one) => one.problems.map(({ code: of }) => `${one.name}: ${of}`));
  return { code, stderr, check, problems, ...found };
}

describe("tributary doctor in a project", () => {
  it("looks at what is there: Node, definition and handlers; the rest is unchecked", async () => {
    const { code, stdout } = await project.run(["doctor"]).finished;
    expect(stdout).toMatch(/^ok +Node +24\./m);
    expect(stdout).toMatch(/^ok +definition +tributary\.config\.ts: pipeline mine/m);
    expect(stdout).toMatch(/^ok +handler orders +functions\/orders\.ts loads: 1 pattern$/m);
    expect(stdout).toMatch(/^unchecked +patterns orders; database; preflight/m);
    expect(stdout).toMatch(/^no problem, 3 ok, \d+ unchecked$/m);
    expect(code).toBe(0);
  });

  it("a definition that is not there or not valid is one problem, and the others look on", async () => {
    await project.write({ "tributary.config.ts": definition('postgres({ tabels: ["a"] })') });
    const invalid = await doctor();
    expect(invalid).toMatchObject({ code: 1, healthy: false });
    expect(invalid.problems.every((problem) => problem === "definition: CONFIGURATION")).toBe(true);
    expect(JSON.stringify(invalid.check("definition"))).toContain("source.tabels");
    expect(invalid.check("handlers")).toMatchObject({ status: "unchecked", why: "needs a valid definition" });
    const none = await doctor({}, ["--pipeline", "none.ts"]);
    expect(none).toMatchObject({ code: 1, problems: ["definition: CONFIGURATION"] });
    expect(none.check("Node")?.status).toBe("ok");
  });

  it("--sql prints a script and nothing else; without a database it has to be told where the server is", async () => {
    const run = async (...args: string[]) => await project.run(["doctor", ...args]).finished;
    const { code, stdout, stderr } = await run("--sql", "--for", "self-hosted", "--role", "reader");
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^-- What the pipeline mine needs of its database, on a server of your own/);
    expect(stdout).toContain('GRANT SELECT ON "public"."orders" TO "reader";');
    expect(stdout).toContain('CREATE PUBLICATION "tributary_mine" FOR TABLE ONLY "public"."orders" WITH');
    for (const [args, said] of [
      [["--sql"], "--for: say where the server is"],
      [["--sql", "--for", "azure"], "Allowed choices are self-hosted, rds, aurora"],
      [["--for", "rds"], "--for: leave it out, or add --sql"],
      [["--sql", "--json", "--for", "rds"], "--json: leave it out"],
      [["--sql", "--for", "rds", "--role", 'a"b'], "write lower-case letters"],
    ] as const) {
      const refused = await run(...args);
      expect([args, refused.code, refused.stdout]).toEqual([args, 2, ""]);
      expect(refused.stderr).toContain(said);
    }
    // A role that the script is to make cannot sign in yet.
    const away = await run(
      "--sql",
      "--for",
      "rds",
      "--database-url",
      "postgres://reader:secret@127.0.0.1:1/shop",
    );
    expect(away).toMatchObject({ code: 0, stdout: expect.stringContaining("rds_replication") });
    expect(away.stderr).toMatch(
      /the script is of the definition alone: PostgreSQL at 127\.0\.0\.1:1 cannot be reached/,
    );
    expect(away.stdout + away.stderr).not.toContain("secret");
  });

  withPostgres((server) => {
    const aws = emulatedAws();

    it("finds what is wrong with the database: a password, rights, a pattern", async () => {
      const url = await freshDatabase(server());
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      try {
        await client.query("CREATE TABLE orders (id int PRIMARY KEY)");
        await client.query("DROP ROLE IF EXISTS bare");
        await client.query("CREATE ROLE bare LOGIN PASSWORD 'right'");
        const as = (password: string) => {
          const place = new URL(url);
          Object.assign(place, { username: "bare", password });
          return { DATABASE_URL: String(place) };
        };
        const refused = await doctor(as("wrong"));
        expect(refused).toMatchObject({ code: 1, problems: ["database: POSTGRES_AUTHENTICATION"] });
        expect(JSON.stringify(refused)).not.toContain("wrong");
        const bare = await doctor(as("right"));
        expect(bare.problems).toEqual([
          "preflight: ROLE_REPLICATION",
          "preflight: SELECT",
          "preflight: PUBLICATION",
        ]);
        await project.write({ "functions/orders.ts": handler("public.orderz") });
        const typo = await doctor({ DATABASE_URL: url });
        expect(typo.problems).toEqual(["patterns orders: HANDLER_PATTERN"]);
        expect(typo.check("patterns orders")?.problems[0]?.message).toContain(
          'did you mean "public.orders"?',
        );
        expect(typo.check("clock of the database")?.status).toBe("ok");
      } finally {
        await client.query("DROP ROLE IF EXISTS bare");
        await client.end();
      }
    });

    it("touches nothing: neither the database, as a role that may only read, nor state, stream and queues", async () => {
      const url = await freshDatabase(server());
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      try {
        await client.query("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)");
        await client.query(
          "CREATE ROLE reader LOGIN REPLICATION PASSWORD 'r'; GRANT SELECT ON orders TO reader",
        );
        await client.query(
          "CREATE PUBLICATION tributary_mine FOR TABLE orders WITH (publish_via_partition_root = true)",
        );
        const catalog = async () =>
          (
            await client.query(
              `SELECT (SELECT json_agg(slot_name ORDER BY 1) FROM pg_replication_slots) AS slots, (SELECT json_agg(pubname ORDER BY 1) FROM pg_publication) AS publications,
                 (SELECT json_agg(rolname ORDER BY 1) FROM pg_roles) AS roles, (SELECT json_agg(oid::regclass::text ORDER BY 1) FROM pg_class WHERE relnamespace = 'public'::regnamespace) AS tables,
                 (SELECT json_agg(o) FROM orders o) AS rows`,
            )
          ).rows;
        const [table, stream, queue] = [
          await aws().freshTable(),
          await aws().freshStream(),
          await aws().freshQueue(),
        ];
        const kept = async () => [
          await catalog(),
          (await aws().dynamodb.send(new ScanCommand({ TableName: table }))).Items,
          (await aws().dynamodb.send(new DescribeTableCommand({ TableName: table }))).Table?.ItemCount,
          (
            await aws().sqs.send(
              new GetQueueAttributesCommand({
                QueueUrl: queue,
                AttributeNames: ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
              }),
            )
          ).Attributes,
        ];
        const before = await kept();
        const place = new URL(url);
        Object.assign(place, { username: "reader", password: "r" });
        const found = await doctor({
          ...(aws().environment as Record<string, string>),
          DATABASE_URL: String(place),
          PGOPTIONS: "-c default_transaction_read_only=on",
          TRIBUTARY_STATE_TABLE: table,
          TRIBUTARY_STREAM: stream,
          TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL: queue,
        });
        expect(found.checks.filter(({ status }) => status === "ok").map(({ name }) => name)).toEqual([
          ...["Node", "definition", "handler orders", "patterns orders", "database", "preflight"],
          ...["clock of the database", "state table", "state table, capture's record", "queue of capture"],
          "held topics",
        ]);
        // The emulator keeps records for a day, and the definition says a week.
        expect(found.problems).toEqual(["stream: STREAM_SETTINGS"]);
        expect(await kept()).toEqual(before);
      } finally {
        await client.query("DROP OWNED BY reader; DROP ROLE reader");
        await client.end();
      }
    });
  });

  it("speaks to the dev that runs in the folder, and finds nothing wrong with it", async () => {
    await project.write({ "schema.sql": "CREATE TABLE orders (id int PRIMARY KEY);" });
    const run = await project.dev();
    await eventually(async () => (await doctor()).check("state table, capture's record")?.status === "ok", {
      what: "a record of capture",
    });
    const found = await doctor();
    expect(found).toMatchObject({
      code: 0,
      problems: [],
      place: expect.stringMatching(/^tributary dev \(process/),
    });
    expect(
      ["handler orders", "patterns orders", "preflight", "stream", "state table", "queue orders"].map(
        (name) => found.check(name)?.status,
      ),
    ).toEqual(Array(6).fill("ok"));
    expect(found.stderr).toMatch(/speaking to tributary dev/);
    await interrupt(run);
  });
});

describe("tributary doctor on a server whose log is not logical", () => {
  withPostgres(
    (server) => {
      it("says so, with what to run", async () => {
        const url = await freshDatabase(server());
        const client = new pg.Client({ connectionString: url });
        await client.connect();
        await client.query("CREATE TABLE orders (id int PRIMARY KEY)").finally(() => client.end());
        const found = await doctor({ DATABASE_URL: url });
        expect(found.problems).toEqual(["preflight: WAL_LEVEL"]);
        expect(found.check("preflight")?.problems[0]?.remedy).toMatch(
          /^ALTER SYSTEM SET wal_level = 'logical'; then restart/,
        );
      });
    },
    { settings: { wal_level: "replica" } },
  );
});
