import type { BufferPool } from "../buffer-pool.ts";
import type { Entry } from "../partition-queue.ts";

/** Base64 is made by pieces of so many bytes: texts that short-lived memory holds. Divisible by three: no padding inside. */
const PIECE = 24 * 1024;

/**
 * The body of a PutRecords request of these entries, in memory of the pool.
 * https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html#API_PutRecords_RequestSyntax
 */
export function putRecordsBody(streamName: string, entries: readonly Entry[], pool: BufferPool): Buffer {
  const head = `{"StreamName":${JSON.stringify(streamName)},"Records":[`;
  const tails = entries.map(({ queue }, i) => {
    const key = JSON.stringify(queue.partitionKey);
    const close = i === entries.length - 1 ? "}]}" : "},";
    return `","PartitionKey":${key},"ExplicitHashKey":"${queue.explicitHashKey}"${close}`;
  });
  let bytes = Buffer.byteLength(head);
  entries.forEach(({ data }, i) => {
    bytes += DATA.length + base64Bytes(data.length) + Buffer.byteLength(tails[i] as string);
  });
  const body = pool.take(bytes);
  let at = body.write(head);
  entries.forEach(({ data }, i) => {
    at += body.write(DATA, at, "latin1");
    for (let from = 0; from < data.length; from += PIECE) {
      at += body.write(data.toString("base64", from, Math.min(from + PIECE, data.length)), at, "latin1");
    }
    at += body.write(tails[i] as string, at);
  });
  return body.subarray(0, at);
}

const DATA = '{"Data":"';

function base64Bytes(bytes: number): number {
  return 4 * Math.ceil(bytes / 3);
}
