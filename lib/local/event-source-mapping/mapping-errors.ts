import { defineError } from "../../change/tributary-error.ts";

/** The stream of an event source mapping does not exist, or was deleted while it was read. */
export class MappedStreamNotFoundError extends defineError("MAPPED_STREAM_NOT_FOUND", "stop").from(
  (streamName: string, cause?: unknown) => ({
    message: `The Kinesis stream "${streamName}" does not exist`,
    remedy: "Create the stream, or correct its name, and start again.",
    cause,
  }),
) {}
