import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { Pipeline } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import type { TeardownPlan } from "../source/source-kind.ts";
import { CaptureState } from "../state/capture-state.ts";

/** The pipeline to tear down, and how to reach its server. */
export interface TeardownOptions {
  readonly pipeline: Pipeline;
  /** The number of the capture task whose it is, where there are several. Default 1. */
  readonly number?: number;
  readonly connection: PostgresConnectionOptions;
  /**
   * The capture lease is held meanwhile, so that a task between two connections is seen too. Undefined: the state table is
   * gone, and only who reads now is seen.
   */
  readonly lease:
    | {
        readonly dynamodb: DynamoDBClient;
        readonly stateTable: string;
        /** The capture tasks' own, or a living one would be taken for dead. */
        readonly leaseMs: number;
      }
    | undefined;
  readonly signal: AbortSignal;
  readonly log: (line: string) => void;
}

/** A living capture task renews within a third of its lease: this much longer than a lease is enough to see it. */
const LEASE_MARGIN_MS = 5_000;

/**
 * Returns what a teardown would remove at the pipeline's server. Touches nothing.
 * @throws SlotForeignError for a slot of that name that is not ours; the errors of `connect`.
 */
export async function planTeardown({
  pipeline,
  number = 1,
  connection,
  signal,
}: Pick<TeardownOptions, "pipeline" | "number" | "connection" | "signal">): Promise<TeardownPlan> {
  const { teardown: kind } = sourceKind(pipeline.source).operate;
  return await kind.plan({ pipeline, number, connection, signal });
}

/**
 * Removes what a pipeline has at its server that would harm it there, as its kind of source knows it: slots, and
 * publications that we made. Nothing else: no table, no role, no setting.
 *
 * @throws SlotInUseError while somebody reads from the slot, CaptureLeaseHeldError while a capture task runs; nothing was
 * removed then. What `planTeardown` throws.
 */
export async function teardown(options: TeardownOptions): Promise<TeardownPlan> {
  const { pipeline, number = 1, connection, lease, signal, log } = options;
  // At once; what comes after this is found below.
  const { inUse } = await planTeardown(options);
  if (inUse) throw inUse;
  const state =
    lease &&
    (await CaptureState.take({
      dynamodb: lease.dynamodb,
      table: lease.stateTable,
      pipeline: pipeline.name,
      slot: number,
      leaseMs: lease.leaseMs,
      waitMs: lease.leaseMs + LEASE_MARGIN_MS,
      signal,
      log,
    }));
  try {
    const { teardown: kind } = sourceKind(pipeline.source).operate;
    return await kind.remove({ pipeline, number, connection, signal });
  } finally {
    await state?.release();
  }
}
