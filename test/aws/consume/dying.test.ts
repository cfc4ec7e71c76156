import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KinesisStreamBatchResponse, KinesisStreamRecord } from "aws-lambda";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FAILPOINTS_VARIABLE } from "../../../lib/failpoint.ts";
import { at, chain, packed } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { type ConsumerBench, consumerBench } from "./consumer-bench.ts";

const aws = emulatedAws();
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-dying-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Hands a batch to a new process. Undefined: it died. */
async function inProcess(
  bench: ConsumerBench,
  effects: string,
  records: readonly KinesisStreamRecord[],
  environment: Record<string, string>,
): Promise<KinesisStreamBatchResponse | undefined> {
  const child = fork(new URL("./dying-consumer.ts", import.meta.url), {
    env: { ...process.env, ...bench.environment, CONSUMER: bench.name, EFFECTS: effects, ...environment },
    execArgv: [],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  let reply: KinesisStreamBatchResponse | undefined;
  child.on("message", (message) => {
    reply = message as KinesisStreamBatchResponse;
  });
  const exited = once(child, "exit");
  child.send(records, () => {});
  await exited;
  return reply;
}

/** As the event source mapping does: the batch again until it is done. Gives the number of deaths. */
async function untilDone(
  bench: ConsumerBench,
  effects: string,
  records: readonly KinesisStreamRecord[],
  environment: Record<string, string>,
): Promise<number> {
  for (let deaths = 0; deaths < 12; deaths++) {
    const reply = await inProcess(bench, effects, records, environment);
    if (reply) {
      expect(reply).toEqual({ batchItemFailures: [] });
      return deaths;
    }
  }
  throw new Error("the process died again and again");
}

async function effectsOf(file: string, partition: number): Promise<string[]> {
  const lines = (await readFile(file, "utf8")).split("\n");
  return lines.filter((line) => line.startsWith(`${partition}:`)).map((line) => line.slice(2));
}

const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => at(from + i));

describe("a change that kills its process", () => {
  it("ends in the dead letters; everything else takes effect, in order", async () => {
    const bench = await consumerBench(aws());
    const effects = join(folder, "killer");
    const records = [
      packed(chain(1, 6), { partition: 0 }),
      packed(chain(1, 6), { partition: 1 }),
      packed(chain(7, 9), { partition: 0 }),
    ];
    const killing = { KILL_AT: `0:${at(4)}` };
    await writeFile(effects, "");
    // The first death is not on record: who died is known only from the second on.
    for (let i = 0; i < 3; i++) expect(await inProcess(bench, effects, records, killing)).toBeUndefined();
    // What was under way at the last death comes last: the other partition is through.
    expect(await bench.stored(1)).toMatchObject({ position: at(6), token: undefined });
    expect(await untilDone(bench, effects, records, killing)).toBe(1);
    expect(await bench.letters()).toMatchObject([
      {
        partition: 0,
        position: at(4),
        attempts: 3,
        error: { name: "HandlerDiedError" },
        payload: { op: "c" },
      },
    ]);
    const [killed, other] = [await effectsOf(effects, 0), await effectsOf(effects, 1)];
    // Only what the first death left open is repeated: from then on every step is on record.
    expect([...new Set(killed)]).toEqual([...ids(1, 3), ...ids(5, 9)]);
    expect(killed.length).toBeLessThanOrEqual(8 + 3);
    expect([...new Set(other)]).toEqual(ids(1, 6));
    expect(other.length).toBeLessThanOrEqual(6 + 6);
    expect(await bench.stored(0)).toMatchObject({ position: at(9), token: undefined, attempts: undefined });
  });

  it("is found inside of a batch by halving it", async () => {
    const bench = await consumerBench(aws());
    const effects = join(folder, "killer-batch");
    const environment = { KILL_AT: `0:${at(6)}`, BATCH: "8", TRIBUTARY_ATTEMPTS: "1" };
    await writeFile(effects, "");
    await untilDone(bench, effects, [packed(chain(1, 8))], environment);
    expect(await bench.letters()).toMatchObject([{ position: at(6), error: { name: "HandlerDiedError" } }]);
    expect(await effectsOf(effects, 0)).toEqual([...ids(1, 5), ...ids(7, 8)]);
  });
});

describe("a process that is killed", () => {
  it.each([
    ["with its partitions taken", "fence-taken=kill", 0],
    ["between an effect and the fence", "after-effect=kill@3", 3],
    ["before the fence moves on", "before-fence-close=kill", 5],
    ["after the fence moved on", "fence-closed=kill", 0],
  ])("%s repeats at most what was not on record", async (_when, failpoint, repeated) => {
    const bench = await consumerBench(aws());
    const effects = join(folder, failpoint.replaceAll(/\W/g, "-"));
    await writeFile(effects, "");
    const first = [packed(chain(1, 5))];
    expect(await inProcess(bench, effects, first, { [FAILPOINTS_VARIABLE]: failpoint })).toBeUndefined();
    const again = [...first, packed(chain(6, 7))];
    expect(await inProcess(bench, effects, again, {})).toEqual({ batchItemFailures: [] });
    const done = await effectsOf(effects, 0);
    expect([...new Set(done)]).toEqual(ids(1, 7));
    expect(done.length).toBe(7 + repeated);
  });
});
