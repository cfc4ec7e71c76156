import { Token } from "aws-cdk-lib";
import type * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import { ConfigurationError, type ConfigurationProblem } from "../../lib/change/tributary-error.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import type { ExistingResources } from "./existing-resources.ts";

/** Throughput that stream and state table accept from the start, for an expected load. Without it they scale with the traffic they have seen. */
export interface WarmThroughput {
  /**
   * MiB a second that an on-demand stream accepts from the start, up to 10240. AWS allows it only in accounts with On-demand Advantage. Default:
   * what the stream has scaled to.
   */
  readonly streamMiBps?: number;
  /** Read units a second of the state table, at least 12000. You pay once, and it cannot be lowered. Default: what the table has scaled to. */
  readonly stateTableReadUnits?: number;
  /** Write units a second of the state table, at least 4000. You pay once, and it cannot be lowered. Default: what the table has scaled to. */
  readonly stateTableWriteUnits?: number;
}

/** https://docs.aws.amazon.com/kinesis/latest/APIReference/API_UpdateStreamWarmThroughput.html */
const MOST_MIBPS = 10_240;
/** Of a new table: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/warm-throughput-scenarios.html */
const LEAST_UNITS = { stateTableReadUnits: 12_000, stateTableWriteUnits: 4000 } as const;

/** @throws ConfigurationError where AWS would refuse it in the middle of a deployment, or it would have no effect. */
export function checkWarmThroughput(
  warm: WarmThroughput,
  stream: Pipeline["stream"],
  existing: ExistingResources,
): void {
  const problems: ConfigurationProblem[] = [];
  const refuse = (field: keyof WarmThroughput, remedy: string) =>
    problems.push({ path: `warmThroughput.${field}`, value: warm[field], remedy });
  const { streamMiBps } = warm;
  if (streamMiBps !== undefined) {
    if (existing.stream)
      refuse("streamMiBps", "leave it out: the stream is there already, and whoever made it warms it");
    else if (stream.mode === "provisioned")
      refuse(
        "streamMiBps",
        "a provisioned stream has what its shards have: raise stream.shards of the definition, or let it be on demand",
      );
    else if (!whole(streamMiBps, 1, MOST_MIBPS))
      refuse("streamMiBps", `write a whole number of MiB a second from 1 to ${MOST_MIBPS}`);
  }
  for (const field of ["stateTableReadUnits", "stateTableWriteUnits"] as const) {
    if (warm[field] === undefined) continue;
    if (existing.stateTable)
      refuse(field, "leave it out: the table is there already, and whoever made it warms it");
    else if (!whole(warm[field], LEAST_UNITS[field], Number.MAX_SAFE_INTEGER))
      refuse(
        field,
        `a new table has ${LEAST_UNITS[field]} units by itself: write a whole number from there on, or leave it out`,
      );
  }
  if (problems.length > 0) throw new ConfigurationError("CdcPipeline", problems);
}

/** Returns the table's part as CDK takes it. */
export function tableWarmth({
  stateTableReadUnits: readUnitsPerSecond,
  stateTableWriteUnits: writeUnitsPerSecond,
}: WarmThroughput): dynamodb.WarmThroughput | undefined {
  if (readUnitsPerSecond === undefined && writeUnitsPerSecond === undefined) return undefined;
  return {
    ...(readUnitsPerSecond !== undefined && { readUnitsPerSecond }),
    ...(writeUnitsPerSecond !== undefined && { writeUnitsPerSecond }),
  };
}

function whole(value: number, least: number, most: number): boolean {
  return Token.isUnresolved(value) || (Number.isInteger(value) && value >= least && value <= most);
}
