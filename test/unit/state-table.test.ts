import {
  ConditionalCheckFailedException,
  type DynamoDBClient,
  type QueryCommand,
  type QueryCommandInput,
  ResourceNotFoundException,
} from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import { FenceUnavailableError } from "../../lib/consume/consume-errors.ts";
import { ConsumerTable } from "../../lib/consume/fence/consumer-table.ts";
import { type CallLimits, once } from "../../lib/state/call-retry.ts";
import { StateTable } from "../../lib/state/state-table.ts";

const key = { pk: "shop#capture", sk: "capture" };
const { signal } = new AbortController();

/** Limits whose errors say which of the two they are. */
const limits: CallLimits = {
  ...{ signal, cut: true, longestWaitMs: 1 },
  refused: (error) => new Error("refused", { cause: error }),
  givenUp: (error) => new Error("given up", { cause: error }),
};

/** A table whose calls answer with these, one after the other, the last one again and again. */
function answering(answers: readonly unknown[], own = limits) {
  const calls: unknown[] = [];
  const send = async (command: unknown) => {
    calls.push(command);
    const answer = answers[Math.min(calls.length, answers.length) - 1];
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { calls, table: new StateTable({ send } as unknown as DynamoDBClient, "state", own) };
}

const throttled = Object.assign(new Error("slow down"), { name: "ThrottlingException" });

describe("a write whose condition does not hold", () => {
  it("is an answer, and is not made again", async () => {
    const refused = new ConditionalCheckFailedException({ message: "no", $metadata: {} });
    const { table, calls } = answering([refused]);
    expect(await table.put(key, {})).toBe(false);
    expect(await table.delete(key)).toBe(false);
    expect(await table.update(key, { UpdateExpression: "REMOVE a" })).toBeUndefined();
    expect(calls.length).toBe(3);
  });
});

describe("a call", () => {
  it("is made again while it is throttled or unanswered, and then answers", async () => {
    const timeout = Object.assign(new Error("no answer"), { name: "TimeoutError" });
    const { table, calls } = answering([throttled, timeout, { Item: { a: { S: "b" } } }]);
    expect(await table.get(key)).toEqual({ a: { S: "b" } });
    expect(calls.length).toBe(3);
  });

  it("that no repetition helps is made once, and ends in the limits' error", async () => {
    const missing = new ResourceNotFoundException({ message: "none", $metadata: {} });
    const { table, calls } = answering([missing]);
    await expect(table.get(key)).rejects.toMatchObject({ message: "refused", cause: missing });
    expect(calls.length).toBe(1);
  });

  it("is given up when its time or its signal is over, with the error of its last try", async () => {
    const late = answering([throttled], { ...limits, forMs: 0 });
    await expect(late.table.get(key)).rejects.toMatchObject({ message: "given up", cause: throttled });
    expect(late.calls.length).toBe(1);
    const ended = answering([throttled], { ...limits, signal: AbortSignal.abort() });
    await expect(ended.table.put(key, {})).rejects.toMatchObject({ message: "given up" });
    expect(ended.calls.length).toBe(1);
  });

  it("of one who looks again anyway is made once, and ends in the error that it met", async () => {
    const { table, calls } = answering([throttled], once(signal));
    await expect(table.get(key)).rejects.toBe(throttled);
    expect(calls.length).toBe(1);
  });

  it("of a consumer says which step of the invocation ran out of time", async () => {
    const dynamodb = { send: () => Promise.reject(throttled) } as unknown as DynamoDBClient;
    const place = { dynamodb, table: "state", pipeline: "shop", consumer: "orders" };
    const table = new ConsumerTable(place).until(AbortSignal.abort(), "read the fence");
    const error = await table.get(key).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(FenceUnavailableError);
    expect((error as Error).message).toContain("read the fence");
  });
});

describe("a query", () => {
  const asked = async (...of: Parameters<StateTable["query"]>) => {
    const from = { pk: { S: "p" }, sk: { S: "b" } };
    const { table, calls } = answering([
      { Items: [{ n: { N: "1" } }], LastEvaluatedKey: from },
      { Items: [{ n: { N: "2" } }] },
    ]);
    const found = [];
    for await (const item of table.query(...of)) found.push(item.n?.N);
    const inputs = calls.map((command) => (command as QueryCommand).input);
    return { found, inputs, from, first: inputs[0] as QueryCommandInput };
  };

  it("goes on where its page ended, consistently", async () => {
    const { found, inputs, from } = await asked({ pk: "p", sk: "a" });
    expect(found).toEqual(["1", "2"]);
    expect(inputs.map((input) => input.ExclusiveStartKey)).toEqual([undefined, from]);
    expect(inputs.every((input) => input.ConsistentRead)).toBe(true);
  });

  it("finds what begins so, a range behind that beginning, or all of the partition", async () => {
    const values = async (...of: Parameters<StateTable["query"]>) => {
      const { KeyConditionExpression: condition, ExpressionAttributeValues = {} } = (await asked(...of))
        .first;
      return [condition, ...Object.values(ExpressionAttributeValues).map(({ S }) => S)];
    };
    expect(await values({ pk: "p", sk: "a#" })).toEqual(["pk = :pk AND begins_with(sk, :from)", "p", "a#"]);
    expect(await values({ pk: "p", sk: "a#" }, { between: ["", "9~"] })).toEqual([
      "pk = :pk AND sk BETWEEN :from AND :to",
      ...["p", "a#", "a#9~"],
    ]);
    expect(await values({ pk: "p", sk: "" })).toEqual(["pk = :pk", "p"]);
  });

  it("reads only the attributes it is asked for, whatever their names", async () => {
    const { first } = await asked({ pk: "p", sk: "a" }, { attributes: ["sk", "table"], pageSize: 8 });
    expect(first).toMatchObject({
      ...{ Limit: 8, ProjectionExpression: "#sk,#table" },
      ExpressionAttributeNames: { "#sk": "sk", "#table": "table" },
    });
  });
});
