import { dynamodbClient, type Environment } from "../aws/clients.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { StatePlace } from "../state/persistent-table.ts";

/** Settings of `pipelineState`. */
export interface PipelineStateOptions {
  /** Default: `TRIBUTARY_STATE_TABLE` of the environment. */
  readonly stateTable?: string;
  /** Region, credentials and endpoints of AWS, as every SDK reads them. Default: `process.env`. */
  readonly environment?: Environment;
  /** Ends what waits. */
  readonly signal?: AbortSignal;
}

/**
 * Returns where a pipeline's state is, which the functions here read and write. Makes no call.
 *
 * @example
 * const shop = pipelineState("shop", { stateTable: "Shop-State-X1" });
 * const status = await consumerStatus({ ...shop, consumer: "orders" }, shop.signal);
 *
 * @throws ConfigurationError where no state table is named.
 */
export function pipelineState(
  pipeline: string,
  { stateTable, environment = process.env, signal = new AbortController().signal }: PipelineStateOptions = {},
): StatePlace {
  const table = stateTable ?? environment.TRIBUTARY_STATE_TABLE;
  if (!table) {
    const remedy = "name the pipeline's state table, or set TRIBUTARY_STATE_TABLE";
    throw new ConfigurationError("The place of the state", [{ path: "stateTable", value: table, remedy }]);
  }
  return { dynamodb: dynamodbClient(environment), table, pipeline, signal };
}
