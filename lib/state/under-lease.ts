import { type AttributeValue, ConditionalCheckFailedException } from "@aws-sdk/client-dynamodb";
import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import { persistently, type TableCallOptions } from "./table-call.ts";

/** The condition of a write that a capture task makes: nothing of a later task stands there. */
export interface NotNewer {
  readonly ConditionExpression: string;
  readonly ExpressionAttributeValues: { readonly ":generation": AttributeValue };
}

/** Returns the condition that an item is not of a later generation of the capture lease than this one. */
export function notNewer(generation: number): NotNewer {
  return {
    ConditionExpression: "attribute_not_exists(generation) OR generation <= :generation",
    ExpressionAttributeValues: { ":generation": { N: String(generation) } },
  };
}

/**
 * Makes a write that carries the condition of `notNewer`.
 * @throws CaptureLeaseLostError where a later task has written there; StateTableError, StateTableUnavailableError.
 */
export async function underLease(
  store: TableCallOptions & { readonly pipeline: string },
  generation: number,
  send: () => Promise<unknown>,
): Promise<void> {
  try {
    await persistently(store, send);
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException)
      throw new CaptureLeaseLostError(store.pipeline, generation);
    throw error;
  }
}
