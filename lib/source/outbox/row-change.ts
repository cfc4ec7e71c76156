import type { SourceChange } from "../../change/change-stream.ts";
import { formatLsn } from "../../change/lsn.ts";
import { partitionOf } from "../../change/topic.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { outboxProblem } from "../../publish/event.ts";
import { laneOf, lanesOf } from "../../publish/relay-sql.ts";
import type { OutboxEnvelope } from "./event/envelope.ts";
import { quarantined } from "./event/quarantine.ts";
import { OutboxLaneError, OutboxRowError } from "./outbox-errors.ts";
import type { Batch, OutboxRow } from "./relay-database.ts";

/** Dependencies of `rowChange`. */
export interface RowChangeOptions {
  readonly envelope: OutboxEnvelope;
  readonly pipeline: Pick<Pipeline, "name" | "topics">;
  readonly database: string;
  readonly epoch: number;
  readonly malformed: "stop" | "quarantine";
}

/**
 * The event of a row at its place in its batch: the same whichever relay gives it, and however often.
 * @throws OutboxRowError, OutboxLaneError
 */
export function rowChange(options: RowChangeOptions, { number, seqs }: Batch, row: OutboxRow): SourceChange {
  const { envelope, pipeline, database, epoch, malformed } = options;
  const { partitions } = pipeline.topics;
  const headers = row.headers ?? "{}";
  const event = {
    aggregateType: row.aggregate_type,
    aggregateId: row.aggregate_id,
    type: row.type,
    headers: JSON.parse(headers) as unknown,
    payload: null,
  };
  const place = {
    epoch,
    commitLsn: number,
    ordinal: seqs.indexOf(row.seq) + 1,
    lsn: formatLsn(number),
    txId: row.xid,
    timeMs: Number(row.created_ms ?? Date.now()),
  };
  const problem = outboxProblem(event);
  if (problem !== undefined) {
    if (malformed !== "quarantine") throw new OutboxRowError(row.seq, problem);
    const content = Buffer.from(JSON.stringify(row));
    const to = { partition: row.lane, partitions: lanesOf(partitions) };
    return quarantined(
      { pipeline, database, now: Date.now },
      { problem, content, transactional: true },
      place,
      to,
    );
  }
  const aggregateId = row.aggregate_id as string;
  const partition = partitionOf(aggregateId, partitions);
  if (laneOf(partition, partitions) !== row.lane)
    throw new OutboxLaneError({ lane: row.lane, partition, partitions });
  return envelope.change(
    {
      id: row.id,
      aggregateType: row.aggregate_type as string,
      aggregateId,
      type: row.type as string,
      payload: oneLine(row.payload ?? "null"),
      headers: oneLine(headers),
      createdAt: row.created_at ?? new Date(place.timeMs).toISOString(),
    },
    place,
  );
}

/** JSON may hold line breaks between its tokens; an event is one line. */
function oneLine(json: string): string {
  return json.replace(/[\r\n]/g, " ");
}
