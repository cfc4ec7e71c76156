import { formatLsn } from "../../change/lsn.ts";
import { commitPrefix, formatOrdinal } from "../../change/position.ts";
import type { Pipeline } from "../../pipeline.ts";
import type { SourceChange } from "../change-source.ts";
import type { OutboxPlace } from "./envelope.ts";

/** What was caught and is no event: its bytes as they were, and what is wrong with them. */
export interface Malformed {
  /** Names fields, never values. */
  readonly problem: string;
  readonly content: Uint8Array;
  readonly transactional: boolean;
}

/** The topic of what is no event: one partition, in the order of the log; with relays, one for each lane. */
export function quarantineTopic({ topics }: Pick<Pipeline, "topics">): string {
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
  { epoch, commitLsn, ordinal, lsn, txId, timeMs }: OutboxPlace,
  { partition, partitions } = { partition: 0, partitions: 1 },
): SourceChange {
  const { pipeline, database, now } = options;
  const json = JSON.stringify({
    op: "m",
    before: null,
    after: null,
    message: {
      prefix: "outbox",
      content: Buffer.from(content).toString("base64"),
      transactional,
      problem,
    },
    ts_ms: now(),
    source: {
      connector: "postgresql",
      name: pipeline.name,
      db: database,
      schema: "",
      table: "",
      txId,
      lsn,
      commitLsn: formatLsn(commitLsn),
      epoch,
      ts_ms: timeMs,
      ordinal,
      snapshot: "false",
      schemaVersion: "",
      key: [],
      mode: "outbox",
    },
  });
  return {
    kind: "change",
    topic: { name: quarantineTopic(pipeline), partitions },
    partition,
    position: commitPrefix(epoch, commitLsn) + formatOrdinal(ordinal),
    json: json.slice(0, -2),
    table: "$outbox-malformed",
  };
}
