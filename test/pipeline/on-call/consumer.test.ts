import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DeleteMessageCommand, ListQueuesCommand, ReceiveMessageCommand } from "@aws-sdk/client-sqs";
import pg from "pg";
import { afterAll, beforeAll, expect } from "vitest";
import { dynamodbClient, sqsClient } from "../../../lib/aws/clients.ts";
import { clearPause, type Pause, readPause, setPause } from "../../../lib/state/pauses.ts";
import { eventually } from "../../eventually.ts";
import { freshDatabase, withPostgres } from "../../postgres/server.ts";
import { interrupt, type RunningVerb, says } from "../dev-project.ts";
import { DevPlace } from "./dev-place.ts";
import { becomesHealthy, onCall, runPrinted, whatMends } from "./on-call.ts";

const DEFINITION = `
import { definePipeline, postgres } from "tributary-cdc/pipeline";
export default definePipeline({
  name: "mine",
  source: postgres({ tables: ["public.orders", "public.payments"] }),
  topics: { partitions: 1 },
  consumers: [
    { name: "orders", entry: "functions/orders.ts", topics: ["*.public.orders"], attempts: 2, timeoutSeconds: 3 },
    { name: "payments", entry: "functions/payments.ts", topics: ["*.public.payments"], attempts: 2, poison: "stop" },
  ],
});
`;

/** Writes each change to a file of the project. It refuses what a file of the project names, as code does that has a mistake. */
const handler = (name: string) => `
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { consumer, Operation } from "tributary-cdc";

const here = (name: string) => fileURLToPath(new URL("../../../../" + name, import.meta.url));
const refuses = () => (existsSync(here("refused.txt")) ? readFileSync(here("refused.txt"), "utf8").split("\\n") : []);

export const handler = consumer("${name}")
  .on("*.public.${name}", [Operation.Create, Operation.Update, Operation.Read], (event: { readonly row: { readonly id: number } }) => {
    if (refuses().some((id) => id === "all" || Number(id) === event.row.id && id !== "")) throw new RangeError("refused");
    appendFileSync(here("${name}.txt"), event.row.id + "\\n");
  })
  .handler();
`;

withPostgres((server) => {
  let place: DevPlace;
  let client: pg.Client;
  let dev: RunningVerb;
  let url: string;
  beforeAll(async () => {
    url = await freshDatabase(server());
    client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query("CREATE TABLE orders (id int PRIMARY KEY, note text)");
    await client.query("CREATE TABLE payments (id int PRIMARY KEY, note text)");
    place = await DevPlace.make({
      "tributary.config.ts": DEFINITION,
      "functions/orders.ts": handler("orders"),
      "functions/payments.ts": handler("payments"),
    });
    dev = await place.start("--database-url", url);
    await insert("orders", 1);
    await insert("payments", 1);
    await arrived("orders", 1);
    await arrived("payments", 1);
  });
  afterAll(async () => {
    if (dev) await interrupt(dev);
    await client?.end();
    await place?.project.remove();
  });

  type Table = "orders" | "payments";
  const insert = async (table: Table, id: number, note = "x") =>
    await client.query(`INSERT INTO ${table} VALUES ($1, $2)`, [id, note]);
  const applied = async (table: Table) =>
    (await place.project.read(`${table}.txt`)).split("\n").slice(0, -1).map(Number);
  const arrived = async (table: Table, id: number) =>
    await eventually(async () => (await applied(table)).includes(id), {
      what: () => `${table} ${id}: ${dev.printed()}`,
      deadlineMs: 60_000,
    });
  const refuse = async (...ids: readonly (number | "all")[]) =>
    await writeFile(place.project.path("refused.txt"), ids.join("\n"));
  const correct = async () => await rm(place.project.path("refused.txt"));

  onCall(20, async (row) => {
    await refuse(2);
    await insert("orders", 2);
    await insert("orders", 3);
    await arrived("orders", 3);
    const command = await whatMends(row, place);
    await correct();
    await runPrinted(place, command);
    expect(await applied("orders")).toEqual([1, 3, 2]);
    await becomesHealthy(place);
  });

  onCall(21, async (row) => {
    await refuse("all");
    await insert("payments", 2);
    await insert("payments", 3);
    const command = await whatMends(row, place);
    expect(await applied("payments")).toEqual([1]);
    await correct();
    await runPrinted(place, command);
    await arrived("payments", 3);
    expect(await applied("payments")).toEqual([1, 2, 3]);
    await becomesHealthy(place);
  });

  onCall(22, async (row) => {
    const file = "functions/orders.ts";
    const whole = await place.project.read(file);
    await place.project.write({ [file]: `throw new Error("no such thing");\n${whole}` });
    await says(dev, "orders: the code before goes on running: The handler file");
    expect(await whatMends(row, place, { healthy: true })).toBe("Correct the file");
    await place.project.write({ [file]: whole });
    await says(dev, "orders: reloaded");
    await insert("orders", 4);
    await arrived("orders", 4);
    await becomesHealthy(place);
    const doctor = place.run({}, "doctor");
    expect(await doctor.ended, doctor.lines.join("\n")).toBe(0);
  });

  onCall(23, async (row) => {
    await pause();
    await insert("orders", 5);
    const lost = await eventually(() => recordOf(5), { what: "the record to lose" });
    await insert("orders", 6);
    await eventually(() => recordOf(6), { what: "a change behind it" });
    await interrupt(dev);
    // As if nobody had read it for as long as the stream keeps it.
    await lose(lost);
    dev = await place.start("--database-url", url);
    await resume();
    const command = await whatMends(row, place);
    expect(await applied("orders")).not.toContain(6);
    await runPrinted(place, `${command} --yes`);
    await arrived("orders", 5);
    await arrived("orders", 6);
    await becomesHealthy(place);
  });

  onCall(24, async (row) => {
    await pause();
    await insert("orders", 7, "x".repeat(1_500_000));
    const claims = place.project.path(".tributary/aws/claims");
    // Behind it: what is stored apart is whole when its pointer is in the stream.
    await insert("orders", 70);
    await eventually(() => recordOf(70), { what: "a change behind the large one" });
    await rename(claims, `${claims}.away`);
    await resume();
    const command = await whatMends(row, place);
    await rm(claims, { recursive: true, force: true });
    await rename(`${claims}.away`, claims);
    await runPrinted(place, command);
    await arrived("orders", 7);
    await arrived("orders", 70);
    await becomesHealthy(place);
  });

  onCall(25, async (row) => {
    await pause();
    await insert("orders", 8);
    const table = {
      dynamodb: dynamodbClient(await environment()),
      table: "tributary-mine",
      pipeline: "mine",
    };
    const target = { consumer: "orders" };
    const { id: _, ...now } = (await readPause({ ...table, signal }, target)) as Pause;
    await clearPause({ ...table, signal }, target);
    await setPause({ ...table, signal }, target, { ...now, since: Date.now() - 160 * 3_600_000 });
    table.dynamodb.destroy();
    await runPrinted(place, await whatMends(row, place));
    await arrived("orders", 8);
    await becomesHealthy(place);
  });

  onCall(27, async (row) => {
    await rm(place.project.path("orders.txt"));
    for (const [verb, quoted] of [
      ["status", "healthy"],
      ["doctor", "no problem"],
    ] as const) {
      expect(row[verb]).toContain(`\`${quoted}\``);
      const said = place.run({}, verb);
      expect([await said.ended, said.lines.join("\n")]).toEqual([0, expect.stringContaining(quoted)]);
    }
    const [, verb = "", flag = ""] = /^tributary (\w+ \w+) (--consumer) <consumer>$/.exec(row.command) ?? [];
    const asked = [...verb.split(" "), flag, "orders"];
    const plan = place.run({}, ...asked);
    expect(await plan.ended).toBe(2);
    const [, confirmation = ""] = /repeat the command with: (.*)$/m.exec(plan.lines.join("\n")) ?? [];
    const reset = place.run({}, ...asked, ...confirmation.split(" "));
    expect(await reset.ended, reset.lines.join("\n")).toBe(0);
    const { rows } = await client.query<{ id: number }>("SELECT id FROM orders ORDER BY id");
    expect((await applied("orders")).toSorted((a, b) => a - b)).toEqual(rows.map(({ id }) => id));
    await becomesHealthy(place);
  });

  onCall(29, async (row) => {
    await refuse(9);
    await insert("orders", 9);
    const sqs = sqsClient(await environment());
    const { QueueUrls = [] } = await sqs.send(new ListQueuesCommand({}));
    // As its retention does.
    const expired = await eventually(
      async () => {
        for (const QueueUrl of QueueUrls) {
          const { Messages = [] } = await sqs.send(new ReceiveMessageCommand({ QueueUrl }));
          for (const { ReceiptHandle } of Messages)
            await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
          if (Messages.length > 0) return true;
        }
        return false;
      },
      { what: "a dead letter", deadlineMs: 60_000 },
    );
    sqs.destroy();
    expect(expired).toBe(true);
    const command = await whatMends(row, place);
    await correct();
    await runPrinted(place, command);
    await arrived("orders", 9);
    await becomesHealthy(place);
  });

  const { signal } = new AbortController();
  const environment = async (): Promise<Record<string, string>> =>
    JSON.parse(await place.project.read(".tributary/dev.json")).environment;

  async function verb(...args: string[]): Promise<void> {
    const run = place.run({}, ...args);
    expect(await run.ended, run.lines.join("\n")).toBe(0);
  }
  const pause = () => verb("consumer", "pause", "--consumer", "orders");
  const resume = () => verb("consumer", "resume", "--consumer", "orders");

  type Put = {
    readonly stream: string;
    readonly put: readonly (readonly [string, { readonly Data: string }])[];
  };
  /** The lines in which tributary dev keeps its stream, by file. */
  async function kept(): Promise<Map<string, string[]>> {
    const directory = place.project.path(".tributary/aws/kinesis");
    const files = (await readdir(directory)).map((name) => join(directory, name));
    const texts = await Promise.all(
      files.map(async (file) => [file, (await readFile(file, "utf8")).split("\n")] as const),
    );
    return new Map(texts);
  }
  const putsIn = (line: string): Put["put"] =>
    line === "" ? [] : ((JSON.parse(line) as Partial<Put>).put ?? []);
  /** Key of the record that has an order's change. */
  async function recordOf(id: number): Promise<string | undefined> {
    const records = [...(await kept()).values()].flat().flatMap(putsIn);
    return records.find(([, { Data }]) =>
      Buffer.from(Data, "base64").toString().includes(`"id":${id},`),
    )?.[0];
  }
  /** Takes a record out of the stream, while tributary dev does not run. */
  async function lose(key: string): Promise<void> {
    for (const [file, lines] of await kept()) {
      const left = lines.map((line) => {
        const put = putsIn(line);
        if (!put.some(([each]) => each === key)) return line;
        return JSON.stringify({ ...JSON.parse(line), put: put.filter(([each]) => each !== key) });
      });
      await writeFile(file, left.join("\n"));
    }
  }
});
