import type { PositionText } from "../../../change/position.ts";
import { shellWord } from "../../../change/printed-command.ts";
import { defineError } from "../../../change/tributary-error.ts";

/** As much is held of a topic as may be: capture stops, and the server keeps its log for us. */
export class TopicHoldFullError extends defineError("HOLD_FULL", "stop").from(
  (topic: string, bytes: number, limit: number) => ({
    message: `the topic ${topic} is held, and ${bytes} bytes of its changes are stored, of ${limit} at most`,
    remedy: `Correct what it is held for (tributary capture status) and release it: tributary capture release --topic ${shellWord(topic)}`,
  }),
) {}

/** A stored segment of a hold is not what was written. */
export class HoldSegmentError extends defineError("HOLD_SEGMENT", "stop").from(
  (topic: string, index: number, position: PositionText, cause: unknown) => ({
    message: `segment ${index} of the held topic ${topic} (behind ${position}) cannot be read: it was altered, or written by a newer version`,
    remedy: "Restore the object in the claim store, or run the version of the capture task that wrote it.",
    cause,
  }),
) {}
