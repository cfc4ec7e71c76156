import { type EventsRecord, parseRecord } from "../../../lib/change/record.ts";
import type { PutRequest, RecordWriter } from "../../../lib/stream/record-writer.ts";

/** A stream in memory that stores what it is given. */
export class MemoryStream implements RecordWriter {
  readonly limits = { maxRecordBytes: 1024 * 1024, requestBytes: 5 * 1024 * 1024, requestRecords: 500 };
  readonly records: EventsRecord[] = [];

  async put({ entries }: PutRequest) {
    for (const { data } of entries) this.records.push(parseRecord(data) as EventsRecord);
    return { kind: "answered", results: entries.map(() => "stored" as const) } as const;
  }

  async openShards() {
    return [];
  }
}
