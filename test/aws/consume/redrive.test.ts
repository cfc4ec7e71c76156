import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import type { SQSEvent } from "aws-lambda";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { handler as redriveFunction } from "../../../functions/redrive.ts";
import { pipelineState } from "../../../lib/admin/state.ts";
import type { RedriveHandler } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { RedriveReport } from "../../../lib/consume/dead-letter/redrive-request.ts";
import { clearPause, setPause } from "../../../lib/state/pauses.ts";
import { eventually } from "../../eventually.ts";
import { at, type Change, packed } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { type ConsumerBench, consumerBench, DONE, failedAt, invoke, redrive } from "./consumer-bench.ts";

const aws = emulatedAws();
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-redrive-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function updates(keys: string, from = 1, more: Partial<Change> = {}): Change[] {
  return keys.split(" ").map((id, i) => {
    const commit = from + i;
    return { at: commit, after: commit === 1 ? null : commit - 1, op: "u", row: { id }, ...more };
  });
}

const commitOf = (id: string) => Number.parseInt(id.slice(8, 24), 16);

/** A consumer that fails on the key `bad` until it is healed. */
function failing(bench: ConsumerBench, environment = {}) {
  const state = { healed: false, effects: [] as string[] };
  const handler = bench.instance(
    (c) =>
      c.on("public.orders", Operation.Update, async (event) => {
        if (event.after.id === "bad" && !state.healed) throw new Error("poison");
        state.effects.push(`${event.after.id}@${commitOf(event.id)}`);
      }),
    { TRIBUTARY_ATTEMPTS: "1", ...environment },
  );
  return { handler, state };
}

describe("redrive", () => {
  it("goes on beside the stream: both get through, in order", async () => {
    const bench = await consumerBench(aws());
    const { handler, state } = failing(bench);
    const all = updates(Array.from({ length: 400 }, (_, i) => (i % 4 === 0 ? "bad" : `k${i % 7}`)).join(" "));
    expect(await invoke(handler, [packed(all.slice(0, 100))])).toEqual(DONE);
    state.healed = true;
    let streaming = true;
    const stream = (async () => {
      for (let i = 100; i < all.length; i += 10) {
        // As the event source mapping does: again until it is done.
        const record = packed(all.slice(i, i + 10));
        await bench.settled(async () => (await invoke(handler, [record])).batchItemFailures.length === 0);
      }
      streaming = false;
    })();
    const reports: RedriveReport[] = [];
    while (streaming) reports.push(await redrive(handler));
    await stream;
    await redrive(handler);
    expect(reports.some(({ done }) => done > 0)).toBe(true);
    for (const key of ["bad", "k1", "k2", "k3", "k4", "k5", "k6", "k0"]) {
      const expected = all.flatMap(({ row, at: commit }) => (row?.id === key ? [`${key}@${commit}`] : []));
      const own = state.effects.filter((effect) => effect.startsWith(`${key}@`));
      expect([...new Set(own)]).toEqual(expected);
    }
    expect(await bench.parkedItems()).toEqual([]);
    expect(await bench.stored()).toMatchObject({ position: at(400) });
  });

  it("parks no more only when nobody may be parking: an invocation that was about to loses the partition", async () => {
    const bench = await consumerBench(aws());
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const effects: string[] = [];
    let healed = false;
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", Operation.Update, async (event) => {
          if (event.after.id === "bad" && !healed) throw new Error("poison");
          if (event.after.id === "slow") {
            reached.resolve();
            await gate.promise;
          }
          effects.push(`${event.after.id}@${commitOf(event.id)}`);
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    expect(await invoke(handler, [packed(updates("bad"))])).toEqual(DONE);
    healed = true;
    // It has parked a change behind the key already, and is not at its end.
    const record = packed(updates("bad slow bad", 2));
    const invocation = invoke(handler, [record]);
    await reached.promise;
    expect(await redrive(handler)).toMatchObject({ done: 1, redriven: 1 });
    gate.resolve();
    expect(await invocation).toEqual(failedAt(record));
    expect(bench.lines.join()).toContain("OWNERSHIP_LOST");
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(effects.filter((effect) => effect.startsWith("bad"))).toEqual(["bad@1", "bad@2", "bad@4"]);
    expect(await redrive(handler)).toMatchObject({ redriven: 0, open: 0 });
  });

  it("has one redrive in a partition at a time", async () => {
    const bench = await consumerBench(aws());
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    let healed = false;
    let calls = 0;
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", Operation.Update, async () => {
          if (!healed) throw new Error("poison");
          calls++;
          reached.resolve();
          await gate.promise;
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    expect(await invoke(handler, [packed(updates("a a"))])).toEqual(DONE);
    healed = true;
    const first = redrive(handler);
    await reached.promise;
    expect(await redrive(handler)).toMatchObject({ busy: 1, redriven: 0, letters: [{ outcome: "busy" }] });
    gate.resolve();
    expect(await first).toMatchObject({ done: 1, redriven: 2 });
    expect(calls).toBe(2);
  });

  it("does not apply again what a superseded process stores once more", async () => {
    const bench = await consumerBench(aws());
    const { handler, state } = failing(bench);
    expect(await invoke(handler, [packed(updates("bad bad"))])).toEqual(DONE);
    const first = (await bench.parkedItems()).filter(({ position }) => position?.S === at(1));
    expect(first.map(({ sk }) => sk?.S?.split("#")[0])).toEqual(["change", "letter"]);
    state.healed = true;
    expect(await redrive(handler, { limit: 1 })).toMatchObject({ redriven: 1, open: 1 });
    const [change] = first;
    await aws().dynamodb.send(new PutItemCommand({ TableName: bench.table, Item: change }));
    expect(await redrive(handler)).toMatchObject({ redriven: 1, done: 1 });
    expect(state.effects).toEqual(["bad@1", "bad@2"]);
    // Nor what it stores when the key is parked no more.
    for (const Item of first) await aws().dynamodb.send(new PutItemCommand({ TableName: bench.table, Item }));
    expect(await redrive(handler)).toMatchObject({ redriven: 0, letters: [] });
    expect(state.effects).toHaveLength(2);
    expect(await bench.parkedItems()).toEqual([]);
  });

  it("is refused by another consumer's function, and where the request is wrong", async () => {
    const bench = await consumerBench(aws());
    const { handler } = failing(bench);
    await expect(redrive(handler, { consumer: "else" })).rejects.toThrow(bench.name);
    await expect(redrive(handler, { limit: 0 })).rejects.toThrow(/limit: write a whole number from 1/);
    await expect(redrive(handler, { position: "17" })).rejects.toThrow(/position: .*34 characters.*"17"/);
    await expect(redrive(handler, { discard: true })).rejects.toThrow(/discard: name the key/);
  });
});

describe("a large change", () => {
  const large = (kib: number) => ({ row: { id: "bad", text: "x".repeat(kib * 1024) } });

  it("above 200 KB stands in the claim store; its letter is whole where the queue takes it, else points there", async () => {
    const claims = pathToFileURL(join(folder, "claims")).href;
    const sizes: unknown[] = [];
    for (const MaximumMessageSize of ["1048576", "262144"]) {
      const bench = await consumerBench(aws(), { queue: { MaximumMessageSize } });
      const texts: number[] = [];
      let healed = false;
      const handler = bench.instance(
        (c) =>
          c.on("public.orders", Operation.Update, (event) => {
            if (!healed && commitOf(event.id) === 1) throw new Error("poison");
            texts.push(String(event.after.text).length);
          }),
        { TRIBUTARY_ATTEMPTS: "1", TRIBUTARY_CLAIM_BUCKET: claims },
      );
      const record = packed([
        { at: 1, after: null, op: "u", ...large(500) },
        { at: 2, after: 1, op: "u", ...large(300) },
        { at: 3, after: 2, op: "u", ...large(100) },
      ]);
      expect(await invoke(handler, [record])).toEqual(DONE);
      const items = await bench.parkedItems();
      for (const item of items) expect(JSON.stringify(item).length).toBeLessThan(210 * 1024);
      expect(items.filter(({ claim }) => claim)).toHaveLength(2);
      const [letter] = await bench.letters();
      sizes.push("payload" in (letter ?? {}) ? "whole" : Object.keys(letter ?? {}).at(-1));
      expect(await aws().takeRefusals()).toHaveLength(MaximumMessageSize === "262144" ? 1 : 0);
      healed = true;
      expect(await redrive(handler)).toMatchObject({ done: 1, redriven: 3 });
      expect(texts).toEqual([500, 300, 100].map((kib) => kib * 1024));
    }
    expect(sizes).toEqual(["whole", "payloadClaim"]);
  });

  it("has its letter point into the state table where the queue takes less", async () => {
    const bench = await consumerBench(aws(), { queue: { MaximumMessageSize: "65536" } });
    const { handler, state } = failing(bench);
    expect(await invoke(handler, [packed([{ at: 1, after: null, op: "u", ...large(150) }])])).toEqual(DONE);
    const [letter = {}] = await bench.letters();
    expect(letter).toMatchObject({ position: at(1), payloadItem: { table: bench.table } });
    expect(await aws().takeRefusals()).toMatchObject([{ operation: "SendMessage" }]);
    const { pk, sk } = letter.payloadItem as { pk: string; sk: string };
    const stored = (await bench.parkedItems()).find((item) => item.pk?.S === pk && item.sk?.S === sk);
    expect(JSON.parse(stored?.event?.S ?? "").after.text).toHaveLength(150 * 1024);
    state.healed = true;
    expect(await redrive(handler)).toMatchObject({ done: 1 });
    expect(state.effects).toEqual(["bad@1"]);
  });

  it("without a claim store holds its partition", async () => {
    const bench = await consumerBench(aws());
    const { handler } = failing(bench);
    const record = packed([...updates("a"), { at: 2, after: 1, op: "u", ...large(300) }]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(await bench.stored()).toMatchObject({ position: at(1), hold: { cause: "ParkedTooLargeError" } });
    expect(bench.lines.join()).toContain("PARKED_TOO_LARGE");
    expect(await bench.letters()).toEqual([]);
  });
});

describe("tributary redrive", () => {
  /** A consumer in `parked-orders.ts` with a parked key; runs the command line on it. */
  async function parked(name: string) {
    const bench = await consumerBench(aws());
    const [effects, healed] = [join(folder, `${name}-effects`), join(folder, `${name}-healed`)];
    await writeFile(effects, "");
    const { handler } = failing(bench);
    expect(await invoke(handler, [packed(updates("bad bad bad"))])).toEqual(DONE);
    const variables = { ...bench.environment, TRIBUTARY_ATTEMPTS: "1", CONSUMER: bench.name };
    const run = async (args: string[], environment: Record<string, string | undefined> = {}) => {
      const child = execFile(
        process.execPath,
        ["lib/cli/main.ts", "redrive", "--consumer", bench.name, ...args],
        {
          env: { ...process.env, ...variables, EFFECTS: effects, HEALED: healed, ...environment },
        },
      );
      let [out, error] = ["", ""];
      child.stdout?.on("data", (chunk) => (out += chunk));
      child.stderr?.on("data", (chunk) => (error += chunk));
      const [code] = await once(child, "close");
      return { code, out, error };
    };
    const applied = async () => (await readFile(effects, "utf8")).split("\n").filter(Boolean);
    return { bench, run, applied, heal: () => writeFile(healed, "") };
  }

  it("runs a handler file here", async () => {
    const { run, applied, heal } = await parked("here");
    const entry = ["--entry", "test/aws/consume/parked-orders.ts"];
    const dry = await run([...entry, "--dry-run"]);
    expect(dry).toMatchObject({ code: 0 });
    expect(dry.out).toMatch(
      /key bad at .*: 3 parked, first failed with Error after 1 calls\n1 keys have open/,
    );
    const failed = await run(entry);
    expect(failed).toMatchObject({ code: 1 });
    expect(failed.out).toContain("failed again (Error, 2 calls)");
    // Who runs it looks: what was thrown, and where.
    expect(failed.error).toMatch(
      /: a redrive failed on \S+, attempt 2 at \w{34}:\n {2}Error: poison\n {6}at .*test\/aws\/consume\/parked-orders\.ts:14:/,
    );
    const lines = await run([...entry, "--json"]);
    expect(
      lines.error
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line)),
    ).toContainEqual(
      expect.objectContaining({ message: "a redriven change failed again", errorMessage: "poison" }),
    );
    await heal();
    const done = await run([...entry, "--key", "bad", "--json"]);
    expect(done).toMatchObject({ code: 0 });
    expect(JSON.parse(done.out)).toMatchObject({ tributary: "redrive", redriven: 3, done: 1, open: 0 });
    expect(await applied()).toEqual(["bad@1", "bad@2", "bad@3"]);
    expect((await run(entry)).out).toBe("0 changes took effect, 0 keys are parked no more\n");
    expect((await run([])).code).toBe(2);
  });

  it("gives up the change that failed by its position, and no other when the command is repeated", async () => {
    const { run, applied, heal } = await parked("discard");
    const entry = ["--entry", "test/aws/consume/parked-orders.ts"];
    const one = await run([...entry, "--key", "bad", "--discard"]);
    expect(one).toMatchObject({ code: 1 });
    expect(one.out).toContain(`key bad at ${at(2)}: failed again`);
    expect(one.out).toMatch(/1 changes given up, 1 keys failed again/);
    await heal();
    // As if its answer had been lost.
    const again = await run([...entry, "--position", at(1), "--discard"]);
    expect(again).toMatchObject({ code: 0 });
    expect(again.out).not.toContain("given up");
    expect(await applied()).toEqual(["bad@2", "bad@3"]);
  });

  it("invokes the function in AWS; so does functions/redrive, for letters and on a schedule", async () => {
    const { bench, run } = await parked("function");
    const { handler, state } = failing(bench);
    const letters = (await bench.letters()).map((letter, i) => ({
      messageId: `m${i}`,
      body: JSON.stringify(letter),
    }));
    await using lambda = await lambdaApi({ "Redrive-Orders": handler });
    const place = { AWS_ENDPOINT_URL_LAMBDA: lambda.url };
    expect((await run(["--function", "Redrive-Orders"], place)).out).toContain("failed again");
    const absent = await run(["--function", "Nothing"], place);
    expect(absent).toMatchObject({ code: 1 });
    expect(absent.error).toMatch(/ResourceNotFoundException \(HTTP 404\).*--stack finds it.*REDRIVE_FAILED/s);
    const nobody = { AWS_ENDPOINT_URL_LAMBDA: "http://127.0.0.1:1" };
    const unreachable = await run(["--function", "Redrive-Orders"], nobody);
    expect(unreachable).toMatchObject({ code: 1 });
    expect(unreachable.error).toMatch(
      /Redrive-Orders failed: Lambda's Invoke: ECONNREFUSED at 127.0.0.1:1.*AWS_ENDPOINT_URL_LAMBDA.*REDRIVE_FAILED/s,
    );

    const before = { ...process.env };
    Object.assign(process.env, bench.environment, place, { TRIBUTARY_REDRIVE_FUNCTION: "Redrive-Orders" });
    try {
      const event = { Records: letters } as unknown as SQSEvent;
      // While the consumer is paused each way is refused, and says by whom; to look is no redrive.
      const shop = pipelineState("shop", { stateTable: bench.table, environment: bench.environment });
      const target = { consumer: bench.name };
      await setPause(shop, target, { by: "ada@laptop", since: 0, reason: undefined });
      for (const way of [
        ["--function", "Redrive-Orders"],
        ["--entry", "test/aws/consume/parked-orders.ts"],
      ]) {
        const paused = await run(way, place);
        expect(paused).toMatchObject({ code: 1 });
        for (const told of [
          /is paused by ada@laptop since 1970/,
          /consumer resume --consumer/,
          /CONSUMER_PAUSED/,
        ])
          expect(paused.error).toMatch(told);
      }
      expect((await run(["--function", "Redrive-Orders", "--dry-run"], place)).code).toBe(0);
      expect(await redriveFunction(event)).toEqual({ batchItemFailures: [{ itemIdentifier: "m0" }] });
      expect(await redriveFunction({})).toEqual({ batchItemFailures: [] });
      await clearPause(shop, target);
      expect(await redriveFunction(event)).toEqual({ batchItemFailures: [{ itemIdentifier: "m0" }] });
      state.healed = true;
      expect(await redriveFunction(event)).toEqual({ batchItemFailures: [] });
      expect(state.effects).toEqual(["bad@1", "bad@2", "bad@3"]);
      // The letter again: nothing is open for it.
      expect(await redriveFunction(event)).toEqual({ batchItemFailures: [] });
      expect(await redriveFunction({})).toEqual({ batchItemFailures: [] });
      expect(state.effects).toHaveLength(3);
    } finally {
      process.env = before;
    }
  });
});

/** As much of Lambda's API as invoking takes: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html */
async function lambdaApi(functions: Record<string, RedriveHandler>) {
  const server = createServer(async (request, response) => {
    const [, name = ""] = /functions\/([^/]+)\/invocations/.exec(request.url ?? "") ?? [];
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const handler = functions[decodeURIComponent(name)];
    if (!handler) {
      response.writeHead(404, { "x-amzn-errortype": "ResourceNotFoundException" }).end("{}");
      return;
    }
    try {
      const report = await redrive(handler, JSON.parse(Buffer.concat(chunks).toString()));
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(report));
    } catch (error) {
      const { name: errorType, message: errorMessage } = error as Error;
      response
        .writeHead(200, { "content-type": "application/json", "x-amz-function-error": "Unhandled" })
        .end(JSON.stringify({ errorType, errorMessage }));
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const closed = async () => {
    server.closeAllConnections();
    server.close();
    await eventually(() => !server.listening, { what: "the server to close" });
  };
  return { url: `http://127.0.0.1:${port}`, [Symbol.asyncDispose]: closed };
}
