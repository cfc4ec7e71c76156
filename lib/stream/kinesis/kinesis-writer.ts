import { type KinesisClient, PutRecordsCommand, type PutRecordsOutput } from "@aws-sdk/client-kinesis";
import { listShards } from "../../aws/list-shards.ts";
import { failpoint } from "../../failpoint.ts";
import { BufferPool } from "../buffer-pool.ts";
import type { RecordLimits } from "../limits.ts";
import type { EntryResult, OpenShard, PutOutcome, PutRequest, RecordWriter } from "../record-writer.ts";
import {
  ClientRetriesError,
  StreamAccessError,
  StreamNotFoundError,
  StreamRequestError,
} from "../stream-errors.ts";
import { putRecordsBody } from "./put-records-body.ts";

/** Memory of answered requests that is kept for the next ones. */
const POOL_BYTES = 12 * 1024 * 1024;

/**
 * Kinesis' own limits.
 * https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
 */
export const KINESIS_LIMITS: RecordLimits = {
  maxRecordBytes: 1024 * 1024,
  requestBytes: 5 * 1024 * 1024,
  requestRecords: 500,
};

/**
 * PutRecords against one stream: makes one attempt and says what became of it; order and retries are the writer's.
 * https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
 */
export class KinesisWriter implements RecordWriter {
  readonly limits = KINESIS_LIMITS;
  readonly #kinesis: KinesisClient;
  readonly #streamName: string;
  readonly #pool = new BufferPool(POOL_BYTES);

  private constructor(kinesis: KinesisClient, streamName: string) {
    this.#kinesis = kinesis;
    this.#streamName = streamName;
  }

  /** @throws ClientRetriesError when the client would send a request again behind the writer's back (rule 6). */
  static async open(kinesis: KinesisClient, streamName: string): Promise<KinesisWriter> {
    const attempts = await kinesis.config.maxAttempts();
    if (attempts !== 1) throw new ClientRetriesError(attempts);
    return new KinesisWriter(kinesis, streamName);
  }

  /**
   * Sends the request once: the client signs and sends it; its body is made here, in one piece, which costs a small part
   * of what the client's own serializer takes for megabytes of base64. Network errors, timeouts, the signal's abort and 5xx answers are outcomes.
   *
   * `mayWrite` is asked once more when the request is ready to go: signing it may have waited for credentials, or the
   * process may have been frozen.
   *
   * @throws StreamNotFoundError, StreamAccessError, StreamRequestError when it would fail the same way again.
   */
  async put(request: PutRequest, signal: AbortSignal, mayWrite = () => true): Promise<PutOutcome> {
    const command = new PutRecordsCommand({ StreamName: this.#streamName, Records: [] });
    const body = putRecordsBody(this.#streamName, request.entries, this.#pool);
    command.middlewareStack.add(
      (next) => (args) => {
        (args.request as { body: Uint8Array }).body = body;
        return next(args);
      },
      // Behind the serializer, ahead of what measures, hashes and signs the body.
      { step: "build", priority: "high", name: "putRecordsBody" },
    );
    command.middlewareStack.add(
      (next) => async (args) => {
        if (!mayWrite()) throw new DOMException("the capture lease is over", "AbortError");
        return await next(args);
      },
      // Behind the signature.
      { step: "finalizeRequest", priority: "low", name: "mayWrite" },
    );
    try {
      const answer = await this.#kinesis.send(command, { abortSignal: signal });
      failpoint("put-records-answered");
      // After a failure the client may still hold it.
      this.#pool.give(Buffer.from(body.buffer));
      return readAnswer(answer, request.entries.length);
    } catch (error) {
      return judge(error, this.#streamName);
    }
  }

  async openShards(abortSignal: AbortSignal): Promise<readonly OpenShard[]> {
    const send: Parameters<typeof listShards>[1] = (command) => this.#kinesis.send(command, { abortSignal });
    const found: OpenShard[] = [];
    for await (const { ShardId, HashKeyRange, SequenceNumberRange } of listShards(this.#streamName, send)) {
      // One that was split or merged takes no more.
      const isOpen = SequenceNumberRange?.EndingSequenceNumber === undefined;
      const hashKey = HashKeyRange?.StartingHashKey;
      if (ShardId && hashKey !== undefined && isOpen) found.push({ shardId: ShardId, hashKey });
    }
    return found;
  }
}

const THROTTLED = new Set([
  "ProvisionedThroughputExceededException",
  "ThrottlingException",
  "LimitExceededException",
  "KMSThrottlingException",
]);

function readAnswer(answer: PutRecordsOutput, entries: number): PutOutcome {
  const records = answer.Records ?? [];
  // An answer that does not say what became of each entry is as good as none.
  if (records.length !== entries) return { kind: "failed", result: "failed", code: "IncompleteAnswer" };
  let code: string | undefined;
  const results = records.map((record): EntryResult => {
    if (record.ErrorCode === undefined && record.SequenceNumber) return "stored";
    code ??= record.ErrorCode ?? "IncompleteAnswer";
    return THROTTLED.has(record.ErrorCode ?? "") ? "throttled" : "failed";
  });
  return { kind: "answered", results, code };
}

/** Errors by which AWS says that this identity may not: an operator must act. */
const ACCESS = new Set([
  "AccessDeniedException",
  "AccessDenied",
  "UnrecognizedClientException",
  "InvalidClientTokenId",
  "MissingAuthenticationTokenException",
  "MissingAuthenticationToken",
  "NotAuthorizedException",
  "OptInRequired",
  "KMSAccessDeniedException",
  "KMSDisabledException",
  "KMSInvalidStateException",
  "KMSNotFoundException",
  "KMSOptInRequired",
]);

/** Credentials that have run out come anew by themselves; so does a clock that the SDK corrects after this. */
const PASSES = new Set([
  "ExpiredToken",
  "ExpiredTokenException",
  "RequestExpired",
  "RequestTimeTooSkewed",
  "CredentialsProviderError",
  "RequestTimeout",
  "RequestTimeoutException",
]);

function judge(error: unknown, streamName: string): PutOutcome {
  if (!(error instanceof Error)) throw error;
  const code = error.name;
  const status = statusOf(error);
  if (code === "ResourceNotFoundException") throw new StreamNotFoundError(streamName, error);
  if (ACCESS.has(code)) throw new StreamAccessError(streamName, code, error);
  if (THROTTLED.has(code) || status === 429) return { kind: "failed", result: "throttled", code };
  if (PASSES.has(code)) return { kind: "failed", result: "failed", code };
  if (isOfClock(error)) return { kind: "failed", result: "failed", code };
  if (code === "InvalidSignatureException") throw new StreamAccessError(streamName, code, error);
  if (status !== undefined && status >= 400 && status < 500) {
    throw new StreamRequestError(streamName, code, error);
  }
  // No answer, a 5xx or one that cannot be read comes from the way or the service; the rest is a defect of ours.
  if (status !== undefined || isNetworkError(error))
    return { kind: "failed", result: "failed", code: networkCode(error) };
  throw error;
}

/** Signed at the wrong time, the SDK corrects its clock by this very answer; a wrong secret stays wrong. */
export function isOfClock({ name, message }: Error): boolean {
  return name === "InvalidSignatureException" && /expired|not yet current/i.test(message);
}

function statusOf(error: Error): number | undefined {
  if (!("$metadata" in error)) return undefined;
  return (error.$metadata as { readonly httpStatusCode?: number } | undefined)?.httpStatusCode;
}

function isNetworkError(error: Error): boolean {
  return (
    error.name === "AbortError" ||
    error.name === "TimeoutError" ||
    "$metadata" in error ||
    ("code" in error && typeof error.code === "string")
  );
}

function networkCode(error: Error): string {
  return "code" in error && typeof error.code === "string" ? error.code : error.name;
}
