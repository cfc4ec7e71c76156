import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import type { StateKey } from "./state-key.ts";
import type { StateItem, StateTable } from "./state-table.ts";

/**
 * The writes of a capture task: each item carries the generation of the task's lease, and is not written where a later task
 * has written. All of them throw CaptureLeaseLostError then, and StateTableError, StateTableUnavailableError.
 */
export class LeasedTable {
  readonly #table: StateTable;
  readonly #pipeline: string;
  readonly #generation: number;

  constructor(place: StatePlace, generation: number) {
    this.#table = persistentTable(place);
    this.#pipeline = place.pipeline;
    this.#generation = generation;
  }

  async put(key: StateKey, attributes: StateItem): Promise<void> {
    const item = { ...attributes, generation: { N: String(this.#generation) } };
    this.#mustHold(await this.#table.put(key, item, this.#notNewer()));
  }

  /** Sets the generation; `changes` is the rest of the update expression, from its second assignment on. */
  async update(key: StateKey, changes: string, values: StateItem = {}): Promise<void> {
    const { ConditionExpression, ExpressionAttributeValues } = this.#notNewer();
    const updated = await this.#table.update(key, {
      UpdateExpression: `SET generation = :generation${changes}`,
      ConditionExpression,
      ExpressionAttributeValues: { ...ExpressionAttributeValues, ...values },
    });
    this.#mustHold(updated !== undefined);
  }

  async delete(key: StateKey): Promise<void> {
    this.#mustHold(await this.#table.delete(key, this.#notNewer()));
  }

  #notNewer() {
    return {
      ConditionExpression: "attribute_not_exists(generation) OR generation <= :generation",
      ExpressionAttributeValues: { ":generation": { N: String(this.#generation) } },
    };
  }

  #mustHold(held: boolean): void {
    if (!held) throw new CaptureLeaseLostError(this.#pipeline, this.#generation);
  }
}
