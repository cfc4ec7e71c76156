import { remedyText } from "#remedy";
import { awsFailure } from "../../aws/failure.ts";
import { defineError } from "../../change/tributary-error.ts";
import { nameOf, type PartitionName } from "../consume-errors.ts";

/** The dead-letter queue did not take a dead letter: the change is not done, its partition waits. */
export class DeadLetterRefusedError extends defineError("DEAD_LETTER_REFUSED", "retry").from(
  (cause: unknown) => ({
    message: `the dead-letter queue did not take a letter: SQS: ${awsFailure(cause)}`,
    remedy: remedyText("Look at the queue's existence, its policy and key, and the function's permissions."),
    cause,
  }),
) {}

/** A dead letter does not fit into the queue: the change is not done, its partition waits. */
export class DeadLetterTooLargeError extends defineError("DEAD_LETTER_TOO_LARGE", "stop").saying(
  (bytes: number) => `a dead letter has ${bytes} bytes, more than the queue takes`,
  remedyText("Set the queue's MaximumMessageSize to 1 MiB, or correct the handler."),
) {}

/** A redrive is at work on what a change would overtake; it comes again. */
export class RedriveUnderWayError extends defineError("REDRIVE_UNDER_WAY", "retry").saying(
  (where: PartitionName) =>
    `${nameOf(where)}: a redrive is at work in this partition, and the next change would overtake it`,
  remedyText("Nothing to do: the change comes again when the redrive has ended."),
) {}

/** A consumer's function was asked to redrive, which only its redrive function does. */
export class RedriveElsewhereError extends defineError("REDRIVE_ELSEWHERE", "stop").saying(
  (consumer: string) => `this function of ${consumer} applies the stream, and does not redrive`,
  remedyText("Invoke its redrive function: tributary redrive finds it."),
) {}
