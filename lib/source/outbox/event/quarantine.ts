import type { SourceChange } from "../../../change/change-stream.ts";
import { type EventPlace, messageEvent } from "../../../change/event-envelope.ts";
import type { Pipeline } from "../../../definition/definition.ts";

/** Content that is no event: its bytes as they were, and its fault. */
export interface Malformed {
  /** Names fields, never values. */
  readonly problem: string;
  readonly content: Uint8Array;
  readonly transactional: boolean;
}

/** The topic of what is no event: one partition, in the order of the log; with relays, one for each lane. */
function quarantineTopic({ topics }: Pick<Pipeline, "topics">): string {
  return `${topics.prefix}.$outbox-malformed`;
}

/** It as a logical message on a topic of its own: for `source.outbox.malformed: "quarantine"`. */
export function quarantined(
  options: {
    readonly pipeline: Pick<Pipeline, "name" | "topics">;
    readonly database: string;
    readonly now: () => number;
  },
  { problem, content, transactional }: Malformed,
  place: EventPlace,
  { partition, partitions } = { partition: 0, partitions: 1 },
): SourceChange {
  const { pipeline, database, now } = options;
  return {
    kind: "change",
    topic: { name: quarantineTopic(pipeline), partitions },
    partition,
    ...messageEvent(
      {
        ...{ pipeline: pipeline.name, database, prefix: "outbox", content, transactional, problem },
        ...{ nowMs: now(), mode: "outbox" },
      },
      place,
    ),
    table: "$outbox-malformed",
  };
}
