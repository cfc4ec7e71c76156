import type { SourceChange } from "../../../change/change-stream.ts";
import { formatLsn } from "../../../change/lsn.ts";
import type { MessagePlace } from "../../../change/message-event.ts";
import { commitPrefix, formatOrdinal } from "../../../change/position.ts";
import { partitionOf, type Topic } from "../../../change/topic.ts";
import type { RouteTable } from "../../../definition/route.ts";
import { cloudEvent } from "./cloud-event.ts";
import type { OutboxMembers } from "./outbox-members.ts";

/** What makes the events of a pipeline's outbox. */
export interface OutboxEnvelopeOptions {
  readonly pipeline: { readonly name: string };
  /** Name of the database: `source.db`. */
  readonly database: string;
  readonly route: RouteTable;
  /** Set: `after` is a CloudEvent of this source. */
  readonly cloudEvents: { readonly source: string } | undefined;
  /** Milliseconds since 1970 UTC; the clock of `ts_ms`. */
  readonly now: () => number;
}

/** The schema that all outbox events name; their table is the aggregate type. */
export const OUTBOX_SCHEMA = "outbox";

/** Stands for all of them where tables are named: in the stored settings. */
export const OUTBOX_TABLES = { schema: OUTBOX_SCHEMA, table: "*" } as const;

/**
 * Outbox events on the wire, whichever way they were caught: a create of the table `outbox.<aggregateType>`, keyed by
 * aggregate. Format: docs, "Formats on the wire".
 */
export class OutboxEnvelope {
  readonly #options: OutboxEnvelopeOptions;

  constructor(options: OutboxEnvelopeOptions) {
    this.#options = options;
  }

  /** The topic of an aggregate type. */
  topic(aggregateType: string): Topic {
    return this.#options.route({ schema: OUTBOX_SCHEMA, table: aggregateType }).topic;
  }

  /** The event, complete but for its predecessor. */
  change(members: OutboxMembers, place: MessagePlace): SourceChange {
    const { pipeline, database, cloudEvents } = this.#options;
    const { aggregateType, aggregateId } = members;
    const { epoch, commitLsn, ordinal, lsn, txId, timeMs } = place;
    const topic = this.topic(aggregateType);
    const source = JSON.stringify({
      connector: "postgresql",
      name: pipeline.name,
      db: database,
      schema: OUTBOX_SCHEMA,
      table: aggregateType,
      txId,
      lsn,
      commitLsn: formatLsn(commitLsn),
      epoch,
      ts_ms: timeMs,
      ordinal,
      snapshot: "false",
      schemaVersion: cloudEvents ? "cloudev1" : "outbox-1",
      key: [cloudEvents ? "subject" : "aggregateId"],
      mode: "outbox",
    });
    const after = cloudEvents ? cloudEvent(members, cloudEvents.source) : plain(members);
    return {
      kind: "change",
      topic,
      partition: partitionOf(aggregateId, topic.partitions),
      position: commitPrefix(epoch, commitLsn) + formatOrdinal(ordinal),
      json: `{"op":"c","before":null,"after":${after},"ts_ms":${this.#options.now()},"source":${source.slice(0, -1)}`,
      table: `${OUTBOX_SCHEMA}.${aggregateType}`,
    };
  }
}

function plain({ payload, headers, createdAt, ...rest }: OutboxMembers): string {
  const { id, aggregateType, aggregateId, type } = rest;
  const facts = JSON.stringify({ id, aggregateType, aggregateId, type });
  return `${facts.slice(0, -1)},"payload":${payload},"headers":${headers},"createdAt":${JSON.stringify(createdAt)}}`;
}
