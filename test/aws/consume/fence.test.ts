import { type DynamoDBClient, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { RedriveLeases } from "../../../lib/consume/dead-letter/redrive-lease.ts";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { fenceKey } from "../../../lib/state/state-key.ts";
import { at, chain, packed, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { type ConsumerBench, consumerBench, DONE, failedAt, invoke } from "./consumer-bench.ts";

const aws = emulatedAws();

/** A handler instance that notes what it is given. */
function noting(bench: ConsumerBench, seen: string[], dynamodb?: DynamoDBClient) {
  return bench.instance(
    (c) =>
      c.on("public.orders", Operation.Create, (event) => void seen.push(`${event.partition}:${event.id}`)),
    {},
    dynamodb,
  );
}

const ids = (partition: number, ...commits: number[]) => commits.map((i) => `${partition}:${at(i)}`);

describe("a gap", () => {
  it("holds its partition, and no other, until what is missing comes", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = noting(bench, seen);
    await invoke(handler, [packed(chain(1, 2))]);
    const missing = packed(chain(3, 4));
    const behindHole = packed(chain(5, 6));
    const other = packed(chain(1, 1), { partition: 2 });
    for (let i = 0; i < 2; i++) expect(await invoke(handler, [behindHole, other])).toEqual(DONE);
    expect(seen).toEqual([...ids(0, 1, 2), ...ids(2, 1)]);
    expect(bench.reports.at(1)).toMatchObject({
      gaps: 1,
      applied: 1,
      failedPartitions: 0,
      heldPartitions: 1,
    });
    expect(bench.lines.join()).toContain('"code":"GAP"');
    expect(await bench.stored()).toMatchObject({ position: at(2), token: undefined });
    expect(await invoke(handler, [missing, behindHole])).toEqual(DONE);
    expect(seen.slice(3)).toEqual(ids(0, 3, 4, 5, 6));
  });

  it("is not seen behind a writer's start, which has no predecessor", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = noting(bench, seen);
    await invoke(handler, [packed(chain(1, 2))]);
    expect(await invoke(handler, [packed(chain(2, 4, null), { writer: 2 })])).toEqual(DONE);
    expect(seen).toEqual(ids(0, 1, 2, 3, 4));
  });
});

describe("a superseded writer", () => {
  it("is dropped once a newer one was seen, in this invocation or an earlier one", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = noting(bench, seen);
    const late = packed([{ at: 3, after: 2 }], { writer: 4 });
    expect(await invoke(handler, [packed(chain(1, 2), { writer: 5 }), late])).toEqual(DONE);
    expect(await invoke(noting(bench, seen), [late])).toEqual(DONE);
    expect(seen).toEqual(ids(0, 1, 2));
    expect(bench.reports.map(({ staleWriter }) => staleWriter)).toEqual([1, 1]);
    expect(await bench.stored()).toMatchObject({ writer: 5, position: at(2) });
  });
});

describe("a start position", () => {
  it("lets a consumer that was added later begin behind it", async () => {
    const bench = await consumerBench(aws(), { startPosition: at(3, { ordinal: 0 }) });
    const seen: string[] = [];
    expect(await invoke(noting(bench, seen), [packed(chain(1, 5))])).toEqual(DONE);
    expect(seen).toEqual(ids(0, 3, 4, 5));
    expect(bench.reports[0]).toMatchObject({ duplicates: 2 });
  });

  it("is never overwritten, and a topic added later has its own", async () => {
    const bench = await consumerBench(aws());
    const consumers = [{ name: bench.name, topics: ["shop.*", "other.*"] }];
    await registerConsumers(aws().dynamodb, bench.table, "shop", consumers, at(2));
    const seen: string[] = [];
    const handler = noting(bench, seen);
    await invoke(handler, [
      packed(chain(1, 1)),
      packed(chain(1, 3), { topic: "other.public.orders", partition: 1 }),
    ]);
    expect(seen.sort()).toEqual([...ids(0, 1), ...ids(1, 3)]);
  });

  it("must be there: nothing is taken before", async () => {
    const bench = await consumerBench(aws(), { startPosition: null });
    const seen: string[] = [];
    const handler = noting(bench, seen);
    const records = [packed(chain(1, 2))];
    await expect(invoke(handler, records)).rejects.toMatchObject({ code: "CONSUMER_NOT_REGISTERED" });
    expect(await bench.stored()).toMatchObject({ token: undefined, position: undefined });
    const consumers = [{ name: bench.name, topics: ["shop.*"] }];
    await registerConsumers(aws().dynamodb, bench.table, "shop", consumers, START_OF_HISTORY);
    expect(await invoke(handler, records)).toEqual(DONE);
    expect(seen).toEqual(ids(0, 1, 2));
  });
});

describe("two invocations at once", () => {
  /** The first waits in its second event until the second invocation, which takes over, has ended. */
  async function overlap(first: ReturnType<typeof packed>, second: ReturnType<typeof packed>) {
    const bench = await consumerBench(aws());
    const reached = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const slow = bench.instance((c) =>
      c.on("public.orders", Operation.Create, async (event) => {
        if (event.id !== at(2)) return;
        reached.resolve();
        await release.promise;
      }),
    );
    const running = invoke(slow, [first]);
    await reached.promise;
    const after = await invoke(noting(bench, []), [second]);
    release.resolve();
    return { bench, first: await running, second: after };
  }

  it("leave the mark to the one that took later", async () => {
    const long = packed(chain(1, 5));
    const { bench, first, second } = await overlap(long, packed(chain(1, 3)));
    expect(second).toEqual(DONE);
    // It came further than its successor, but may not say so: the records come again.
    expect(first).toEqual(failedAt(long));
    expect(await bench.stored()).toMatchObject({ position: at(3), token: undefined });
  });

  it("are both done where the one that took later came as far", async () => {
    const { bench, first, second } = await overlap(packed(chain(1, 3)), packed(chain(1, 5)));
    expect([first, second]).toEqual([DONE, DONE]);
    expect(await bench.stored()).toMatchObject({ position: at(5), token: undefined });
  });
});

describe("a request that arrives a second time", () => {
  /** Passes updates on, and keeps them. */
  function recording(client: DynamoDBClient, updates: UpdateItemCommand[]): DynamoDBClient {
    const send = (command: UpdateItemCommand, options: object) => {
      if (command instanceof UpdateItemCommand) updates.push(command);
      return client.send(command, options);
    };
    return { send } as unknown as DynamoDBClient;
  }

  it("changes nothing, neither after the close nor while the successor runs", async () => {
    const bench = await consumerBench(aws());
    const updates: UpdateItemCommand[] = [];
    const first = noting(bench, [], recording(aws().dynamodb, updates));
    await invoke(first, [packed(chain(1, 2)), packed(chain(1, 1), { partition: 1 })]);
    expect(updates).toHaveLength(2);
    const again = () =>
      Promise.all(
        updates.map((update) =>
          aws()
            .dynamodb.send(new UpdateItemCommand(update.input))
            .then(
              () => "carried out",
              (error: Error) => error.name,
            ),
        ),
      );
    const refused = ["ConditionalCheckFailedException", "ConditionalCheckFailedException"];
    expect(await again()).toEqual(refused);
    expect(await bench.stored()).toMatchObject({ position: at(2), token: undefined });
    const successor = bench.instance((c) =>
      c.on("public.orders", Operation.Create, async () => expect(await again()).toEqual(refused)),
    );
    expect(await invoke(successor, [packed(chain(3, 4))])).toEqual(DONE);
    expect(bench.reports.at(-1)).toMatchObject({ applied: 2, failedPartitions: 0 });
    expect(await bench.stored()).toMatchObject({ position: at(4), token: undefined });
  });

  it("neither takes the lease of a redrive that has ended, nor ends one that began since", async () => {
    const bench = await consumerBench(aws());
    const updates: UpdateItemCommand[] = [];
    const leases = new RedriveLeases(
      new ConsumerTable({
        dynamodb: recording(aws().dynamodb, updates),
        table: bench.table,
        pipeline: "shop",
        consumer: bench.name,
      }),
    );
    const { signal } = new AbortController();
    const first = await leases.take(TOPIC, 0, "redrive", signal);
    await first?.isOurs();
    await first?.release();
    const firsts = [...updates];
    const again = async () => {
      for (const update of firsts)
        await expect(aws().dynamodb.send(new UpdateItemCommand(update.input))).rejects.toThrow();
    };
    await again();
    const second = await leases.take(TOPIC, 0, "redrive", signal);
    await again();
    expect(await leases.take(TOPIC, 0, "another", signal)).toBeUndefined();
    expect(await second?.isOurs()).toBe(true);
    await second?.release();
  });
});

describe("an invocation of an older library, which writes random tokens and removes them", () => {
  /** An update as the older library made it. */
  async function old(bench: ConsumerBench, update: string, condition?: string): Promise<boolean> {
    const { pk, sk } = fenceKey({ pipeline: "shop", consumer: bench.name }, TOPIC, 0);
    const command = new UpdateItemCommand({
      TableName: bench.table,
      Key: { pk: { S: pk }, sk: { S: sk } },
      UpdateExpression: update,
      ConditionExpression: condition,
      ExpressionAttributeValues: {
        ":t": { S: "zVoKq0lD3p8_Wx-1" },
        ...(update.includes(":m") ? { ":m": { S: at(2) }, ":w": { N: "1" } } : {}),
      },
    });
    return aws()
      .dynamodb.send(command)
      .then(
        () => true,
        () => false,
      );
  }
  const close = (bench: ConsumerBench) => old(bench, "SET m0=:m,w0=:w REMOVE t0", "t0=:t");

  it("loses its partition to one of this library, which sees that it was not given back", async () => {
    const bench = await consumerBench(aws());
    await old(bench, "SET t0=:t");
    expect(await bench.stored()).toMatchObject({ token: "zVoKq0lD3p8_Wx-1" });
    expect(await invoke(noting(bench, []), [packed(chain(1, 3))])).toEqual(DONE);
    expect(await close(bench)).toBe(false);
    expect(await bench.stored()).toMatchObject({ position: at(3), token: undefined });
  });

  it("takes a partition from one of this library, and gives it back to the next", async () => {
    const bench = await consumerBench(aws());
    const records = [packed(chain(1, 3))];
    const robbed = bench.instance((c) =>
      c.on("public.orders", Operation.Create, async (event) => {
        if (event.id === at(1)) expect(await old(bench, "SET t0=:t")).toBe(true);
      }),
    );
    expect(await invoke(robbed, records)).toEqual(failedAt(records[0] as (typeof records)[0]));
    expect(await close(bench)).toBe(true);
    const seen: string[] = [];
    expect(await invoke(noting(bench, seen), records)).toEqual(DONE);
    expect(seen).toEqual(ids(0, 3));
  });
});

describe("an answer that is lost", () => {
  /** The n-th update is carried out, but nobody hears of it. */
  function losing(client: DynamoDBClient, n: number): DynamoDBClient {
    let updates = 0;
    const send = async (command: UpdateItemCommand, options: object) => {
      const answer = await client.send(command, options);
      if (command instanceof UpdateItemCommand && ++updates === n) {
        throw Object.assign(new Error("lost"), { name: "TimeoutError" });
      }
      return answer;
    };
    return { send } as unknown as DynamoDBClient;
  }

  it.each([
    ["to the take", 1],
    ["to the close", 2],
  ])("%s is no loss of the partition, and no second effect", async (_which, n) => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const records = [packed(chain(1, 3)), packed(chain(1, 2), { partition: 1 })];
    expect(await invoke(noting(bench, seen, losing(aws().dynamodb, n)), records)).toEqual(DONE);
    expect(seen.sort()).toEqual([...ids(0, 1, 2, 3), ...ids(1, 1, 2)]);
    expect(await bench.stored()).toMatchObject({ position: at(3), token: undefined });
  });

  it("where the table does not answer at all, everything comes again", async () => {
    const bench = await consumerBench(aws());
    const dead = { send: () => Promise.reject(Object.assign(new Error(), { name: "TimeoutError" })) };
    const handler = noting(bench, [], dead as unknown as DynamoDBClient);
    await expect(invoke(handler, [packed(chain(1, 1))], 2_000)).rejects.toMatchObject({
      code: "FENCE_UNAVAILABLE",
    });
  });
});
