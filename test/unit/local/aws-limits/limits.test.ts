import { describe, expect, test } from "vitest";
import { dynamodbRefusal, itemBytes } from "../../../../lib/local/aws-limits/dynamodb.ts";
import { numberRefusal } from "../../../../lib/local/aws-limits/dynamodb-numbers.ts";
import { embeddedMetricsRefusal } from "../../../../lib/local/aws-limits/embedded-metrics.ts";
import { s3Refusal } from "../../../../lib/local/aws-limits/s3.ts";
import { sqsRefusal } from "../../../../lib/local/aws-limits/sqs.ts";

/* What the emulators cannot show; test/aws/refused-calls.test.ts meets the rest as a client does. */

describe("a DynamoDB item", () => {
  test("has the size of its names and values in UTF-8", () => {
    const item = {
      ü: { S: "€" },
      n: { N: "-123.450" },
      b: { B: new Uint8Array(10) },
      wire: { B: Buffer.alloc(10).toString("base64") },
      set: { SS: ["a", "bc"] },
      t: { BOOL: true },
      m: { M: { key: { L: [{ NULL: true }, { S: "xyz" }] } } },
    };
    const names = 2 + 1 + 1 + 4 + 3 + 1 + 1;
    const values = 3 + 5 + 10 + 10 + 3 + 1 + (3 + 1 + 3 + (3 + 1 + 1 + 1 + 3));
    expect(itemBytes(item)).toBe(names + values);
  });

  const key = { hash: "pk", range: "sk" };
  test("with keys of no text, of too much or without one is refused", () => {
    const put = (pk: string, sk: string | undefined) =>
      dynamodbRefusal(
        "PutItem",
        { Item: { pk: { S: pk }, ...(sk === undefined ? {} : { sk: { S: sk } }) } },
        key,
      );
    expect(put("p".repeat(2048), "s".repeat(1024))).toBeUndefined();
    expect(put("p".repeat(2049), "s")?.message).toContain("hashkey");
    expect(put("ü".repeat(1025), "s")?.message).toContain("hashkey");
    expect(put("p", "s".repeat(1025))?.message).toContain("range keys");
    expect(put("p", "")?.message).toContain("Key: sk");
    expect(put("p", undefined)?.message).toContain("Missing the key sk");
  });

  test("of placeholders that no expression uses, or that are missing, is refused", () => {
    const update = (names: Record<string, string>, values: Record<string, unknown>) =>
      dynamodbRefusal("UpdateItem", {
        UpdateExpression: "SET #a=:a",
        ExpressionAttributeNames: names,
        ExpressionAttributeValues: values,
      })?.message;
    expect(update({ "#a": "a" }, { ":a": { S: "" } })).toBeUndefined();
    expect(update({ "#a": "a", "#b": "b" }, { ":a": { S: "" } })).toContain(
      "unused in expressions: keys: {#b}",
    );
    expect(update({ "#a": "a" }, {})).toContain("value: :a");
    expect(update({ "#a.b": "a" }, { ":a": { S: "" } })).toContain("invalid key");
  });
});

test.each([
  ["0", undefined],
  ["-0.00", undefined],
  ["1e125", undefined],
  ["9.9999999999999999999999999999999999999E+125", undefined],
  ["1e126", "overflow"],
  ["1e-130", undefined],
  ["0.1e-129", undefined],
  ["1e-131", "underflow"],
  ["12345678901234567890123456789012345678000", undefined],
  ["0.00012345678901234567890123456789012345678", undefined],
  ["123456789012345678901234567890123456789", "38 significant"],
  ["NaN", "cannot be converted"],
  ["", "cannot be converted"],
  [".", "cannot be converted"],
] as const)("the number %s: refused for %s", (number, why) => {
  if (why === undefined) expect(numberRefusal(number)).toBeUndefined();
  else expect(numberRefusal(number)?.message).toContain(why);
});

describe("an S3 request", () => {
  test("names a key of 1,024 bytes at most", () => {
    expect(s3Refusal("GET", `/bucket/${"k".repeat(1024)}?versioning`, {})).toBeUndefined();
    expect(s3Refusal("GET", `/bucket/${"k".repeat(1025)}`, {})?.code).toBe("KeyTooLongError");
    expect(s3Refusal("PUT", `/bucket/${encodeURIComponent("ü").repeat(513)}`, {})?.code).toBe(
      "KeyTooLongError",
    );
  });

  test("carries 2 KB of metadata at most", () => {
    const put = (bytes: number) =>
      s3Refusal("PUT", "/bucket/key", { "x-amz-meta-position": "p".repeat(bytes - "position".length) });
    expect(put(2048)).toBeUndefined();
    expect(put(2049)?.code).toBe("MetadataTooLarge");
  });
});

describe("an SQS message", () => {
  test("has attributes of proper names and values", () => {
    const send = (name: string, DataType = "String", StringValue = "v") =>
      sqsRefusal("SendMessage", {
        MessageBody: "x",
        MessageAttributes: { [name]: { DataType, StringValue } },
      })?.code;
    expect(send("shop.orders-1")).toBeUndefined();
    for (const name of ["", ".a", "a.", "a..b", "AWS.a", "amazon.a", "ä", "x".repeat(257)]) {
      expect(send(name), name).toBe("InvalidParameterValue");
    }
    expect(send("a", "Text")).toBe("InvalidParameterValue");
    expect(send("a", "String", "")).toBe("InvalidParameterValue");
  });

  test("of a batch counts in sum", () => {
    const entries = (count: number, bytes: number) => ({
      Entries: Array.from({ length: count }, (_, i) => ({ Id: String(i), MessageBody: "x".repeat(bytes) })),
    });
    expect(sqsRefusal("SendMessageBatch", entries(8, 128 * 1024))).toBeUndefined();
    expect(sqsRefusal("SendMessageBatch", entries(9, 128 * 1024))?.code).toBe("BatchRequestTooLong");
    expect(sqsRefusal("SendMessageBatch", entries(11, 1))?.code).toBe("TooManyEntriesInBatchRequest");
  });
});

describe("a line of metrics", () => {
  const line = (dimensions: Record<string, string>, metrics: Record<string, unknown>) =>
    JSON.stringify({
      _aws: {
        Timestamp: 1,
        CloudWatchMetrics: [
          {
            Namespace: "Tributary",
            Dimensions: [Object.keys(dimensions)],
            Metrics: Object.keys(metrics).map((Name) => ({ Name, Unit: "Count" })),
          },
        ],
      },
      ...dimensions,
      ...metrics,
    });
  const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`n${i}`, 1]));
  const texts = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`n${i}`, "v"]));

  test("holds 100 metrics of 100 values with 30 dimensions at most", () => {
    expect(embeddedMetricsRefusal(line(texts(30), {}))).toBeUndefined();
    expect(embeddedMetricsRefusal(line(texts(31), {}))?.message).toContain("31 dimensions");
    expect(embeddedMetricsRefusal(line({ Pipeline: "shop" }, many(100)))).toBeUndefined();
    expect(embeddedMetricsRefusal(line({ Pipeline: "shop" }, many(101)))?.message).toContain("101 metrics");
    const values = (count: number) => ({ Lag: Array(count).fill(1) });
    expect(embeddedMetricsRefusal(line({}, values(100)))).toBeUndefined();
    expect(embeddedMetricsRefusal(line({}, values(101)))?.message).toContain("101 values");
    expect(embeddedMetricsRefusal(line({}, { Lag: null }))?.message).toContain("no number");
  });

  test("has dimensions of printable ASCII, 1,024 characters at most", () => {
    expect(embeddedMetricsRefusal(line({ Table: "t".repeat(1024) }, {}))).toBeUndefined();
    for (const table of ["t".repeat(1025), "", " ", "größe", "a\nb"]) {
      expect(embeddedMetricsRefusal(line({ Table: table }, {}))?.code, table).toBe("InvalidMetrics");
    }
  });

  test("of anything else is none", () => {
    for (const text of ["plain", '{"a":1}', '{"_aws"']) expect(embeddedMetricsRefusal(text)).toBeUndefined();
    expect(embeddedMetricsRefusal('{"_aws":{}}')?.message).toContain("not of the format");
  });
});
