import type { SourceChange } from "../../../change/change-stream.ts";
import type { EventPlace } from "../../../change/event-envelope.ts";
import { commitPrefix, formatOrdinal } from "../../../change/position.ts";
import { outboxTableName } from "../../../definition/outbox-table.ts";
import type { RouteTable } from "../../../definition/route.ts";
import { outboxProblem } from "../../../publish/event.ts";
import { OutboxEnvelope } from "../../outbox/event/envelope.ts";
import { MalformedEvent, messageMembers } from "../../outbox/event/message-members.ts";
import type { OutboxMembers } from "../../outbox/event/outbox-members.ts";
import { quarantined } from "../../outbox/event/quarantine.ts";
import type { LogPipeline } from "../definition.ts";
import { OutboxFormsMixedError, OutboxMalformedError, OutboxTableError } from "./decode-errors.ts";
import type { DecodedPipeline } from "./decoded-pipeline.ts";
import { type EmittedMessage, placeOfMessage, type Relation } from "./pgoutput/messages.ts";
import type { Transaction } from "./transaction.ts";

/** Dependencies of `OutboxEvents`. */
export interface OutboxEventsOptions {
  readonly pipeline: DecodedPipeline;
  readonly database: string;
  readonly epoch: number;
  readonly route: RouteTable;
  readonly now: () => number;
}

/** Indexes of the columns of the outbox table that hold the members of an event; undefined where there is no such column. */
export interface OutboxColumns {
  readonly id: number;
  readonly aggregateType: number;
  readonly aggregateId: number;
  readonly type: number;
  readonly payload: number;
  readonly headers: number | undefined;
  readonly createdAt: number | undefined;
}

/** The JSON text of a column's value in the row being read. */
export type ColumnText = (column: number) => string;

/** Names as Debezium's outbox router has them count too: `aggregatetype`. */
const COLUMNS = {
  id: "id",
  aggregateType: "aggregatetype",
  aggregateId: "aggregateid",
  type: "type",
  payload: "payload",
  headers: "headers",
  createdAt: "createdat",
} as const;

/** Finds an event's members among the columns of these names; undefined where one is missing that it needs. */
export function outboxColumns(columns: readonly string[]): OutboxColumns | undefined {
  const names = columns.map((name) => name.replaceAll("_", "").toLowerCase());
  const at = (member: keyof typeof COLUMNS) => {
    const index = names.indexOf(COLUMNS[member]);
    return index < 0 ? undefined : index;
  };
  const [id, aggregateType, aggregateId, type, payload] = (
    ["id", "aggregateType", "aggregateId", "type", "payload"] as const
  ).map(at);
  if (
    id === undefined ||
    aggregateType === undefined ||
    aggregateId === undefined ||
    type === undefined ||
    payload === undefined
  )
    return undefined;
  return {
    ...{ id, aggregateType, aggregateId, type, payload },
    headers: at("headers"),
    createdAt: at("createdAt"),
  };
}

/**
 * The events of applications that the log holds: inserts into the outbox table, and logical messages of its prefix.
 *
 * A row's position counts as every row change's does (rule 1). Messages have a count of their own inside a
 * transaction, so a topic must not be given both in one transaction: two positions would be one, or out of order.
 * That is refused, and so is a topic that the rows of a table go to.
 */
export class OutboxEvents {
  readonly #options: OutboxEventsOptions;
  readonly #outbox: NonNullable<LogPipeline["source"]["outbox"]> | undefined;
  readonly #envelope: OutboxEnvelope;
  readonly #table: { readonly schema: string; readonly table: string } | undefined;
  /** Topics that the rows of tables go to, and topics that messages went to. */
  readonly #tableTopics = new Set<string>();
  readonly #messageTopics = new Set<string>();
  /** The form in which the topics of one transaction were given events. */
  #given = { prefix: "", forms: new Map<string, "row" | "message">() };

  constructor(options: OutboxEventsOptions) {
    this.#options = options;
    this.#outbox = options.pipeline.source.outbox;
    this.#table = this.#outbox?.table === undefined ? undefined : outboxTableName(this.#outbox.table);
    this.#envelope = new OutboxEnvelope({ ...options, cloudEvents: this.#outbox?.cloudEvents });
  }

  /** The columns of the relation if it is the outbox table; an error where it lacks one that an event needs. */
  columns({ schema, table, columns }: Relation): OutboxColumns | OutboxTableError | undefined {
    if (schema !== this.#table?.schema || table !== this.#table.table) return undefined;
    return outboxColumns(columns.map(({ name }) => name)) ?? new OutboxTableError(`${schema}.${table}`);
  }

  /** Takes note of where a table's rows go; an error where messages go there too. */
  shares(topic: string): OutboxFormsMixedError | undefined {
    this.#tableTopics.add(topic);
    return this.#messageTopics.has(topic) ? new OutboxFormsMixedError({ topic }) : undefined;
  }

  /** The event of a row that was inserted. @throws OutboxMalformedError, OutboxFormsMixedError */
  row(
    columns: OutboxColumns,
    text: ColumnText,
    transaction: Transaction,
    ordinal: number,
    lsn: string,
  ): SourceChange {
    const place = this.#place(transaction, ordinal, lsn);
    try {
      return this.#give(rowMembers(columns, text, transaction), place, "row");
    } catch (error) {
      if (!(error instanceof MalformedEvent)) throw error;
      const entries = Object.entries(columns).flatMap(([member, column]) =>
        column === undefined ? [] : [`${JSON.stringify(member)}:${text(column as number)}`],
      );
      return this.#malformed(error.problem, Buffer.from(`{${entries.join()}}`), true, place, "row");
    }
  }

  /** Returns true if a message is an event. */
  takes(prefix: string): boolean {
    return prefix === this.#outbox?.messages;
  }

  /** The event of a message. @throws OutboxMalformedError, OutboxFormsMixedError */
  message(
    message: EmittedMessage,
    transaction: Transaction | undefined,
    ordinal: number,
    lsn: string,
  ): SourceChange {
    const { content, transactional } = message;
    const place = transaction
      ? this.#place(transaction, ordinal, lsn)
      : {
          epoch: this.#options.epoch,
          commitLsn: placeOfMessage(message.lsn),
          ordinal,
          lsn,
          txId: "",
          timeMs: this.#options.now(),
        };
    try {
      // It is in the log even when its transaction was rolled back: nobody can say whether it happened.
      if (!transactional) throw new MalformedEvent("the message is not transactional");
      const missing = {
        id: commitPrefix(place.epoch, place.commitLsn) + formatOrdinal(ordinal),
        createdAt: new Date(place.timeMs).toISOString(),
      };
      return this.#give(messageMembers(content, missing), place, "message");
    } catch (error) {
      if (!(error instanceof MalformedEvent)) throw error;
      return this.#malformed(error.problem, content, transactional, place, "message");
    }
  }

  #place(transaction: Transaction, ordinal: number, lsn: string): EventPlace {
    const { begin, timeMs } = transaction;
    const { epoch } = this.#options;
    return { epoch, commitLsn: begin.commitLsn, ordinal, lsn, txId: String(begin.xid), timeMs };
  }

  #give(members: OutboxMembers, place: EventPlace, form: "row" | "message"): SourceChange {
    const change = this.#envelope.change(members, place);
    this.#once(change.topic.name, place, form);
    return change;
  }

  #malformed(
    problem: string,
    content: Uint8Array,
    transactional: boolean,
    place: EventPlace,
    form: "row" | "message",
  ): SourceChange {
    if (this.#outbox?.malformed !== "quarantine")
      throw new OutboxMalformedError({ form, lsn: place.lsn, problem });
    const { database, pipeline, now } = this.#options;
    const change = quarantined({ pipeline, database, now }, { problem, content, transactional }, place);
    this.#once(change.topic.name, place, form);
    return change;
  }

  #once(topic: string, { epoch, commitLsn }: EventPlace, form: "row" | "message"): void {
    if (form === "message") {
      if (this.#tableTopics.has(topic)) throw new OutboxFormsMixedError({ topic });
      this.#messageTopics.add(topic);
    }
    const prefix = commitPrefix(epoch, commitLsn);
    if (this.#given.prefix !== prefix) this.#given = { prefix, forms: new Map() };
    const before = this.#given.forms.get(topic);
    if (before !== undefined && before !== form) throw new OutboxFormsMixedError({ topic });
    this.#given.forms.set(topic, form);
  }
}

/** @throws MalformedEvent */
function rowMembers(columns: OutboxColumns, text: ColumnText, { timeMs }: Transaction): OutboxMembers {
  const value = (column: number | undefined) =>
    column === undefined ? undefined : (JSON.parse(text(column)) as unknown);
  const asText = (column: number) => {
    const given = value(column);
    return typeof given === "number" ? String(given) : given;
  };
  const id = asText(columns.id);
  const createdAt = value(columns.createdAt) ?? new Date(timeMs).toISOString();
  const headers = value(columns.headers) ?? {};
  const aggregateType = asText(columns.aggregateType);
  const aggregateId = asText(columns.aggregateId);
  const type = asText(columns.type);
  const problem = outboxProblem({ aggregateType, aggregateId, type, headers, payload: null });
  if (problem !== undefined) throw new MalformedEvent(problem);
  if (typeof id !== "string") throw new MalformedEvent("id must be a text, a number or a UUID");
  if (typeof createdAt !== "string") throw new MalformedEvent("created_at must be a time");
  return {
    id,
    aggregateType: aggregateType as string,
    aggregateId: aggregateId as string,
    type: type as string,
    payload: text(columns.payload),
    headers: columns.headers === undefined || headers === null ? "{}" : headersText(text(columns.headers)),
    createdAt,
  };
}

function headersText(json: string): string {
  return json === "null" ? "{}" : json;
}
