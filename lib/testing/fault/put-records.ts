import type { AwsCall, AwsFault } from "./aws-proxy.ts";

/** An entry of a PutRecords call as it stands on the wire. */
export interface WireEntry {
  readonly PartitionKey: string;
  readonly ExplicitHashKey?: string;
  /** Base64. */
  readonly Data: string;
}

/** The entries of a PutRecords call; of any other, none. */
export function entriesOf(call: AwsCall): readonly WireEntry[] {
  if (call.operation !== "PutRecords") return [];
  return (call.body as { readonly Records: readonly WireEntry[] }).Records;
}

/**
 * A PutRecords call that fails in part: the chosen entries are not stored and answered with `code`, the others are
 * stored, those after a failed one too, as Kinesis does it.
 */
export function failEntries(
  call: AwsCall,
  chosen: (entry: WireEntry, index: number) => boolean,
  code = "ProvisionedThroughputExceededException",
): AwsFault {
  const entries = entriesOf(call);
  const fails = entries.map(chosen);
  const kept = entries.filter((_, i) => !fails[i]);
  return {
    kind: "rewrite",
    body: kept.length === 0 ? undefined : { ...(call.body as object), Records: kept },
    answer: (answer) => {
      const stored = [...((answer as { Records?: unknown[] } | undefined)?.Records ?? [])];
      const Records = fails.map((failed) =>
        failed ? { ErrorCode: code, ErrorMessage: code } : stored.shift(),
      );
      return { FailedRecordCount: fails.filter(Boolean).length, Records };
    },
  };
}
