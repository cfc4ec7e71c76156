import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { StateTable } from "../../state/state-table.ts";
import { FenceUnavailableError } from "../consume-errors.ts";

/** A consumer of a pipeline, and the state table that it stands in. */
export interface ConsumerPlace {
  readonly dynamodb: DynamoDBClient;
  /** The state table's name. */
  readonly table: string;
  readonly pipeline: string;
  readonly consumer: string;
}

const LONGEST_WAIT_MS = 1_000;

/** The state table as the code of one consumer uses it. */
export class ConsumerTable {
  /** The state table's name. */
  readonly name: string;
  readonly pipeline: string;
  readonly consumer: string;
  readonly #dynamodb: DynamoDBClient;

  constructor({ dynamodb, table, pipeline, consumer }: ConsumerPlace) {
    this.name = table;
    this.pipeline = pipeline;
    this.consumer = consumer;
    this.#dynamodb = dynamodb;
  }

  /**
   * Returns the table for one step, whose calls are tried until the signal aborts. They throw FenceUnavailableError then,
   * which names the step, and errors that no repetition helps as they are.
   */
  until(signal: AbortSignal, step: string): StateTable {
    return new StateTable(this.#dynamodb, this.name, {
      ...{ signal, cut: true, longestWaitMs: LONGEST_WAIT_MS },
      refused: (error) => error,
      givenUp: (error) => new FenceUnavailableError(step, error),
    });
  }
}
