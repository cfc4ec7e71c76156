import type { ChangeEventJson } from "../../change/event.ts";
import { printJson } from "../../change/json-print.ts";
import { parseRecord, positionOf } from "../../change/record.ts";
import { RecordFormatError } from "../../change/record-errors.ts";
import { TributaryError } from "../../change/tributary-error.ts";
import type { PartitionName } from "../../consume/consume-errors.ts";
import { ConsumerTable } from "../../consume/fence/consumer-table.ts";
import type { PartitionHold } from "../../consume/hold/hold-state.ts";
import { HoldTable } from "../../consume/hold/hold-table.ts";
import type { ClaimReader } from "../../consume/run/claim-reader.ts";
import { parseExactJson } from "../../consume/run/json.ts";
import { consumerPlaceOf, type DeadLetterPlace } from "./place.ts";
import { readCheckpoint } from "./stored-letters.ts";

/** The first change that a held partition has not done: that it waits for, or that stands behind what is missing. */
export interface HeldEvent {
  /** Undefined: nothing that can be read is held. */
  readonly position: string | undefined;
  readonly event: string | undefined;
  readonly unread: TributaryError | undefined;
  readonly waiting: readonly [];
  readonly waitingCount: undefined;
}

/** Reads the first change that a held partition has not done. @throws FenceUnavailableError, StateItemError */
export async function firstHeldEvent(
  place: DeadLetterPlace,
  consumer: string,
  { topic, partition }: PartitionName,
  hold: PartitionHold,
  claims: ClaimReader,
): Promise<HeldEvent> {
  const { signal } = place.state;
  const at = consumerPlaceOf(place, consumer);
  const checkpoint = await readCheckpoint(at, { topic, partition }, signal);
  const nothing = { waiting: [], waitingCount: undefined, unread: undefined } as const;
  const holds = new HoldTable(new ConsumerTable(at));
  for await (const { records } of holds.records({ topic, partition, id: hold.id }, hold.last, signal)) {
    for (const { kinesis } of records) {
      const found = await firstBehind(Buffer.from(kinesis.data, "base64"), checkpoint, claims, signal);
      if (found) return { ...nothing, ...found };
    }
  }
  return { ...nothing, position: undefined, event: undefined };
}

/** The first event of a record behind a position. */
async function firstBehind(
  data: Buffer,
  checkpoint: string,
  claims: ClaimReader,
  signal: AbortSignal,
): Promise<Pick<HeldEvent, "position" | "event" | "unread"> | undefined> {
  try {
    const record = parseRecord(data, parseExactJson);
    if (record.kind === "events") {
      const event = record.events.find((one) => positionOf(one) > checkpoint);
      return event && shown(event);
    }
    if (record.position <= checkpoint) return undefined;
    try {
      return shown(await claims.read(record, signal));
    } catch (error) {
      if (!(error instanceof TributaryError)) throw error;
      return { position: record.position, event: undefined, unread: error };
    }
  } catch (error) {
    // One of a newer version, or that cannot be read, may be what it waits for.
    if (!(error instanceof RecordFormatError)) throw error;
    return { position: undefined, event: undefined, unread: error };
  }
}

function shown(event: ChangeEventJson) {
  return { position: positionOf(event), event: printJson(event), unread: undefined };
}
