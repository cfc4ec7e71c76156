import { remedyText } from "#remedy";
import { awsFailure } from "../aws/failure.ts";
import type { PositionText } from "../change/position.ts";
import { defineError } from "../change/tributary-error.ts";
import type { StateItem } from "../state/state-table.ts";

/** The topic partition that an error is about. */
export interface PartitionName {
  readonly topic: string;
  readonly partition: number;
}

/** The partition as messages name it. */
export function nameOf({ topic, partition }: PartitionName): string {
  return `${topic}/${partition}`;
}

/**
 * Changes between the fence's mark and this event never came: a record was discarded, expired or skipped. The
 * partition stops; the other ones go on.
 */
export class GapError extends defineError("GAP", "retry").from(
  (
    consumer: string,
    where: PartitionName,
    mark: PositionText,
    position: PositionText,
    after: PositionText,
  ) => ({
    message: `${nameOf(where)}: the change at ${position} follows ${after}, but the last one that took effect stands at ${mark}: changes between them are missing`,
    remedy: `Find the records that were discarded, expired or skipped. If they are gone: tributary consumer accept-gap --consumer ${consumer} --topic '${where.topic}' --partition ${where.partition}`,
    mark,
    after,
  }),
) {}

/**
 * A writer starts in a partition at a change that may follow others which expired before they were read: the consumer had
 * finished nothing of the shard for about as long as the stream keeps records. The partition stops; the other ones go on.
 */
export class ExpiredGapError extends defineError("GAP_EXPIRED", "retry").from(
  (consumer: string, where: PartitionName, mark: PositionText, position: PositionText, until: number) => ({
    message: `${nameOf(where)}: a writer starts at ${position}, the last change that took effect stands at ${mark}, and records that arrived before ${new Date(until).toISOString()} may have expired unread: changes between them may be missing`,
    remedy: `See why the consumer did not read. Then: tributary consumer accept-gap --consumer ${consumer} --topic '${where.topic}'`,
  }),
) {}

/** The capture program has not written this consumer's start position yet; nothing is lost, the batch comes again. */
export class ConsumerNotRegisteredError extends defineError("CONSUMER_NOT_REGISTERED", "retry").saying(
  (pipeline: string, consumer: string, topic: string) =>
    `consumer "${consumer}" has no start position for topic "${topic}" in pipeline "${pipeline}"`,
  remedyText("Start the capture task with the definition that has this consumer and its topics."),
) {}

/** The event of a partition whose fence another invocation has taken. */
export class OwnershipLostError extends defineError("OWNERSHIP_LOST", "retry").saying(
  (where: PartitionName) => `${nameOf(where)}: another invocation has taken this partition over`,
  remedyText("Nothing to do: the batch comes again."),
) {}

/** Somebody has paused the consumer: nothing of it takes effect. `told` says who, when and why. */
export class ConsumerPausedError extends defineError("CONSUMER_PAUSED", "stop").from(
  (consumer: string, told: string) => ({
    message: `consumer "${consumer}" is paused ${told}`,
    remedy: `Nothing is lost: its changes wait in the stream. To go on: tributary consumer resume --consumer ${consumer}`,
    told,
  }),
) {}

/** The fence could not be read or written in the time there was. */
export class FenceUnavailableError extends defineError("FENCE_UNAVAILABLE", "retry").from(
  (what: string, cause: unknown) => ({
    message: `the state table did not answer (${what}): DynamoDB: ${awsFailure(cause)}`,
    // Without `REACH_AWS` in it, which the bundle of a deployed consumer would keep.
    remedy: remedyText(
      "If it lasts, look at the table's throttles and the function's permissions, and see that AWS can be reached from here: AWS_REGION, AWS_ENDPOINT_URL where one is set, the network, the credentials.",
    ),
    cause,
  }),
) {}

/** A record is of a format that this version of the library cannot read; it waits for a newer one. */
export class RecordNotSupportedError extends defineError("RECORD_NOT_SUPPORTED", "stop").saying(
  (what: string, which: string) =>
    `the record is ${what}, which this version of the consumer library cannot read (${which})`,
  remedyText("Deploy the consumer with the library version of the capture task."),
) {}

/** A change stands in a claim store, and the consumer does not know of one; the record waits. */
export class ClaimStoreNotNamedError extends defineError("CLAIM_STORE_NOT_NAMED", "stop").saying(
  (bucket: string) =>
    `a change that was too large for the stream stands in ${bucket}, and this consumer's environment names no claim store`,
  remedyText(
    "Set TRIBUTARY_CLAIM_BUCKET to the capture task's value, and permit the function to read there.",
  ),
) {}

/**
 * An item of the state table is not as this version of the library writes it. `item` is its sort key, `problem` an attribute's
 * name and what was expected there; never a value.
 */
export class StateItemError extends defineError("STATE_ITEM", "stop").from(
  (consumer: string, item: string, problem: string) => {
    const [, topic = "", partition = ""] = /^(?:letter|change)#(.+)\/(\d+)#/.exec(item) ?? [];
    return {
      message: `consumer "${consumer}": the item ${item} of the state table cannot be read: ${problem}`,
      remedy: remedyText("Deploy the version that wrote it, or restore the item from a backup of the table."),
      /** The topic partition that the item is about, where its key says so. */
      place: topic === "" ? undefined : { topic, partition: Number(partition) },
    };
  },
) {}

/** Returns what makes the error of a place in an item, or in an attribute of it that holds JSON. */
export function refuseItem(
  item: StateItem,
  attribute = "",
  consumer = item.pk?.S?.split("#consumer#")[1] ?? "",
) {
  return (path: string, problem: string): StateItemError =>
    new StateItemError(
      consumer,
      item.sk?.S ?? "",
      `${[attribute, path].filter(Boolean).join(".")}: ${problem}`,
    );
}
