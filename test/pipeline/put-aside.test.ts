import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ReceiveMessageCommand } from "@aws-sdk/client-sqs";
import { afterEach, expect, test } from "vitest";
import { PUT_ASIDE } from "../../lib/change/control-event.ts";
import { DirectoryClaimStore } from "../../lib/claim-check/directory-claim-store.ts";
import { readWantedAsides } from "../../lib/state/asides.ts";
import { holdRecord, readHolds } from "../../lib/state/holds.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  async function scene(source: object) {
    const url = await freshDatabase(server(), { encoding: "SQL_ASCII" });
    const bench = await CaptureBench.create(aws(), url, {
      source: { sqlAsciiEncoding: "utf-8", ...source },
    });
    cleanups.push(() => bench.end());
    await bench.client.query("SET client_encoding = 'SQL_ASCII'");
    const claims = await mkdtemp(join(tmpdir(), "tributary-aside-"));
    cleanups.push(() => rm(claims, { recursive: true, force: true }));
    const queue = await aws().freshQueue({ MaximumMessageSize: String(1024 * 1024) });
    const environment = {
      TRIBUTARY_CLAIM_BUCKET: pathToFileURL(claims).href,
      TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL: queue,
    };
    const letter = () =>
      eventually(
        async () => {
          const { Messages } = await aws().sqs.send(
            new ReceiveMessageCommand({ QueueUrl: queue, VisibilityTimeout: 300 }),
          );
          return Messages?.[0] && JSON.parse(Messages[0].Body ?? "");
        },
        { what: "a dead letter", deadlineMs: 30_000 },
      );
    const told = async () => {
      const records = await bench.records();
      return records.flatMap(({ kinesis }) => {
        const { events } = JSON.parse(Buffer.from(kinesis.data, "base64").toString());
        return events.map(
          ({ after, message }: { after: { id: number } | null; message?: { prefix: string } }) =>
            message ? message.prefix : after?.id,
        );
      });
    };
    return { bench, environment, claims, letter, told };
  }
  const UNREADABLE = "chr(233)";

  test("a change above what the queue takes is put aside with its bytes in the claim store", async () => {
    const { bench, environment, claims, letter, told } = await scene({ undecodable: "dead-letter" });
    const capture = bench.capture(environment);
    await capture.printed("streaming from slot");
    await bench.client.query(`INSERT INTO orders VALUES (1, repeat('x', 1000000) || ${UNREADABLE})`);
    await bench.insert(2, 2);
    await bench.reached(2);
    expect(await told()).toEqual([PUT_ASIDE, 2]);
    const found = await letter();
    expect(found).toMatchObject({ pipeline: "shop", table: "public.orders", column: "note" });
    const { signal } = new AbortController();
    const bytes = await new DirectoryClaimStore(claims).get(found.messageClaim, signal);
    expect(bytes.length).toBeGreaterThan(1_000_000);
    expect(bytes.at(0)).toBe(0x49);
  });

  test("an operator puts the one change aside that holds a topic, by one command", async () => {
    const { bench, environment, letter, told } = await scene({});
    const capture = bench.capture(environment);
    await capture.printed("streaming from slot");
    await bench.insert(1, 1);
    await bench.client.query(`INSERT INTO orders VALUES (2, ${UNREADABLE})`);
    await bench.insert(3, 3);
    await capture.printed("is held");
    const status = await eventually(
      async () => {
        const shown = bench.command("capture", "status");
        await shown.ended;
        return shown.lines.join("\n").includes("--at") && shown.lines.join("\n");
      },
      { what: "the hold in the status", deadlineMs: 30_000 },
    );
    const [, position = ""] = /capture dead-letter --at ([0-9A-F]{34})/.exec(status) ?? [];
    const command = bench.command("capture", "dead-letter", "--at", position);
    expect(await command.ended).toBe(0);
    await bench.reached(3, undefined, 60_000);
    expect(await told()).toEqual([1, PUT_ASIDE, 3]);
    expect(await letter()).toMatchObject({ position, error: { code: "TEXT_ENCODING" } });
    const shown = bench.command("capture", "status", "--json");
    await shown.ended;
    expect(JSON.parse(shown.lines.find((line) => line.startsWith("{")) ?? "")).toMatchObject({
      holds: [],
      tasks: [
        { slot: expect.any(String), epoch: 1, confirmed: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) },
      ],
    });
    const wrong = bench.command("capture", "dead-letter", "--at", "0/1B143C8");
    expect(await wrong.ended).not.toBe(0);
    expect(wrong.lines.join("\n")).toContain("34 characters");
  });

  test("is listed, shown with its row as the server sent it, and taken from the queue once its table was read again", async () => {
    const { bench, environment } = await scene({ undecodable: "dead-letter" });
    const capture = bench.capture(environment);
    await capture.printed("streaming from slot");
    await bench.client.query(`INSERT INTO orders VALUES (1, 'caf' || ${UNREADABLE})`);
    await bench.client.query(`INSERT INTO orders VALUES (2, repeat('x', 1100000) || ${UNREADABLE})`);
    await bench.insert(3, 3);
    await bench.reached(3);
    const run = async (...args: string[]) => {
      const command = bench.run(environment, "dlq", ...args);
      const code = await command.ended;
      return {
        code,
        text: command.lines.join("\n"),
        lines: command.lines.filter((line) => line.startsWith("{")),
      };
    };
    const list = async () => (await run("list", "--capture", "--json")).lines.map((line) => JSON.parse(line));
    const [small, large] = (await eventually(
      async () => {
        const found = await list();
        return found.every(({ messages }) => messages.length === 1) && found.length === 2 && found;
      },
      { what: "both changes in the list", deadlineMs: 60_000 },
    )) as { position: string; code: string }[];
    expect(small).toMatchObject({ of: "capture", table: "public.orders", code: "TEXT_ENCODING" });
    const shown = await run("show", "--capture", "--position", small?.position ?? "");
    expect(shown.code).toBe(0);
    expect(shown.text).toMatch(/insert of public\.orders[\s\S]* id +"1"[\s\S]* note +"caf\\\\xe9"/);
    const whole = await run("show", "--capture", "--position", large?.position ?? "", "--json");
    const { change } = JSON.parse(whole.lines[0] ?? "");
    expect(change.after.note.text).toHaveLength(1_100_000 + 4);

    const [, command = ""] = /npm run -s tributary -- (backfill start .*)$/m.exec(shown.text) ?? [];
    // Its table's backfill is refused at the same row: nothing is mended, and nothing is deleted.
    const early = await run("redrive", "--capture");
    expect(early).toMatchObject({ code: 1 });
    expect(early.text).toContain("0 messages whose table was read again");
    expect(await list()).toHaveLength(2);

    await bench.client.query("UPDATE orders SET note = 'cafe' WHERE id IN (1, 2)");
    await eventually(
      async () => {
        // As it is printed.
        await bench.run(environment, ...command.split(" ")).ended;
        return (await list()).every(({ state }: { state: string }) => state === "read again");
      },
      { what: "the table to be read again", deadlineMs: 90_000 },
    );
    const unasked = await run("discard", "--capture", "--position", small?.position ?? "");
    expect(unasked.code).toBe(2);
    expect(unasked.text).toContain("Its table was read again since");
    const one = await run("discard", "--capture", "--position", small?.position ?? "", "--yes");
    expect(one).toMatchObject({ code: 0 });
    expect((await list()).filter(({ messages }) => messages.length > 0)).toMatchObject([
      { position: large?.position },
    ]);
    const rest = await run("redrive", "--capture");
    expect(rest.text).toContain("1 message");
    expect(await run("list", "--capture")).toMatchObject({
      code: 0,
      text: expect.stringContaining("No open"),
    });
  });

  test("a topic that is held since its table is another one is not released by the way", async () => {
    const { bench } = await scene({});
    const { signal } = new AbortController();
    const store = { dynamodb: aws().dynamodb, table: bench.consumer.table, pipeline: "shop", signal };
    const [from, drained] = ["1".padStart(34, "0"), "0".repeat(34)];
    await holdRecord(store, 1).write({
      ...{ topic: "shop.public.orders", from, drained, last: drained, since: 1 },
      ...{ first: 0, next: 0, changes: 0, bytes: 0 },
      reason: { code: "KEY_CHANGED", message: "m", remedy: "r", table: "public.orders", position: from },
    });
    const command = bench.command("capture", "dead-letter", "--at", from);
    expect(await command.ended).not.toBe(0);
    expect(command.lines.join("\n")).toContain("capture release --topic shop.public.orders");
    expect(await readHolds(store)).toMatchObject([{ released: false }]);
    expect(await readWantedAsides(store)).toEqual([]);
  });

  test("a task that knows no queue does not start where changes are to be put aside", async () => {
    const { bench, environment } = await scene({ undecodable: "dead-letter" });
    const capture = bench.capture({ ...environment, TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL: "" });
    expect(await capture.ended).toBe(2);
    expect(capture.lines.join()).toContain("CAPTURE_QUEUE_MISSING");
  });
});
