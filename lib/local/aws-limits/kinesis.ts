import * as z from "zod";
import { type AwsRefusal, binaryBytes, firstRefusal, utf8Bytes } from "../../aws/refusal.ts";

const PUT_RECORDS = "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html";
/** Until UpdateMaxRecordSize says otherwise, with the partition key: https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html */
const RECORD_BYTES = 1024 * 1024;
/** Of all records with their partition keys. Streams whose records may be larger take up to 10 MiB; the emulator has none. */
const REQUEST_BYTES = 5 * 1024 * 1024;
const REQUEST_RECORDS = 500;
const PARTITION_KEY_CHARACTERS = 256;
const HASH_KEYS = 2n ** 128n;
const STREAM_NAME = /^[a-zA-Z0-9_.-]{1,128}$/;

const record = z.looseObject({
  Data: z.unknown(),
  PartitionKey: z.string(),
  ExplicitHashKey: z.string().nullish(),
});
const putRecords = z.looseObject({ Records: z.array(record) });
const named = z.looseObject({ StreamName: z.string() });
type PutRecord = z.infer<typeof record>;

/** Returns why Kinesis refuses a request, or undefined. */
export function kinesisRefusal(operation: string, input: unknown): AwsRefusal | undefined {
  const { StreamName } = named.safeParse(input).data ?? {};
  if (StreamName !== undefined && !STREAM_NAME.test(StreamName)) {
    return constraint(
      StreamName,
      "streamName",
      "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
    );
  }
  if (operation === "PutRecord") {
    const parsed = record.safeParse(input);
    return parsed.success ? recordRefusal(parsed.data, "partitionKey") : undefined;
  }
  if (operation !== "PutRecords") return undefined;
  const parsed = putRecords.safeParse(input);
  return parsed.success ? recordsRefusal(parsed.data.Records) : undefined;
}

function recordsRefusal(records: readonly PutRecord[]): AwsRefusal | undefined {
  if (records.length < 1 || records.length > REQUEST_RECORDS) {
    const bound =
      records.length < 1 ? "greater than or equal to 1" : `less than or equal to ${REQUEST_RECORDS}`;
    return constraint("[…]", "records", `Member must have length ${bound}`);
  }
  const bytes = records.reduce((sum, one) => sum + recordBytes(one), 0);
  return firstRefusal([
    () => (bytes > REQUEST_BYTES ? argument("Records size exceeds 5 MB limit", PUT_RECORDS) : undefined),
    ...records.map((one, i) => () => recordRefusal(one, `records.${i + 1}.member.partitionKey`)),
  ]);
}

function recordRefusal(one: PutRecord, path: string): AwsRefusal | undefined {
  const { PartitionKey: key, ExplicitHashKey: hash } = one;
  const characters = key.length;
  if (characters < 1 || characters > PARTITION_KEY_CHARACTERS) {
    const bound =
      characters < 1 ? "greater than or equal to 1" : `less than or equal to ${PARTITION_KEY_CHARACTERS}`;
    return constraint(key, path, `Member must have length ${bound}`);
  }
  if (hash !== undefined && hash !== null && !/^(?:0|[1-9]\d{0,38})$/.test(hash)) {
    return constraint(
      hash,
      "explicitHashKey",
      "Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38})",
    );
  }
  if (hash && BigInt(hash) >= HASH_KEYS) {
    return argument(
      `Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was ${hash}`,
      PUT_RECORDS,
    );
  }
  if (recordBytes(one) > RECORD_BYTES) {
    return constraint(
      "…",
      path.replace("partitionKey", "data"),
      `Member must have length less than or equal to ${RECORD_BYTES}`,
    );
  }
  return undefined;
}

function recordBytes({ Data, PartitionKey }: PutRecord): number {
  return binaryBytes(Data) + utf8Bytes(PartitionKey);
}

function constraint(value: string, path: string, what: string): AwsRefusal {
  return {
    code: "ValidationException",
    message: `1 validation error detected: Value '${value}' at '${path}' failed to satisfy constraint: ${what}`,
    page: PUT_RECORDS,
  };
}

function argument(message: string, page: string): AwsRefusal {
  return { code: "InvalidArgumentException", message, page };
}
