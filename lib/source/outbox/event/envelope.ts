import type { SourceChange } from "../../../change/change-stream.ts";
import { type EventPlace, openEvent } from "../../../change/event-envelope.ts";
import { partitionOf, type Topic } from "../../../change/topic.ts";
import type { RouteTable } from "../../../definition/route.ts";
import { cloudEvent } from "./cloud-event.ts";
import type { OutboxMembers } from "./outbox-members.ts";

/** Dependencies of `OutboxEnvelope`. */
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
  change(members: OutboxMembers, place: EventPlace): SourceChange {
    const { pipeline, database, cloudEvents } = this.#options;
    const { aggregateType, aggregateId } = members;
    const topic = this.topic(aggregateType);
    const after = cloudEvents ? cloudEvent(members, cloudEvents.source) : plain(members);
    const source = {
      ...{ pipeline: pipeline.name, database, schema: OUTBOX_SCHEMA, table: aggregateType, mode: "outbox" },
      schemaVersion: cloudEvents ? "cloudev1" : "outbox-1",
      key: [cloudEvents ? "subject" : "aggregateId"],
    };
    return {
      kind: "change",
      topic,
      partition: partitionOf(aggregateId, topic.partitions),
      ...openEvent(`{"op":"c","before":null,"after":${after}`, this.#options.now(), source, place),
      table: `${OUTBOX_SCHEMA}.${aggregateType}`,
    };
  }
}

function plain({ payload, headers, createdAt, ...rest }: OutboxMembers): string {
  const { id, aggregateType, aggregateId, type } = rest;
  const facts = JSON.stringify({ id, aggregateType, aggregateId, type });
  return `${facts.slice(0, -1)},"payload":${payload},"headers":${headers},"createdAt":${JSON.stringify(createdAt)}}`;
}
