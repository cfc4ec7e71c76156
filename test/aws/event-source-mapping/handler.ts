import { appendFileSync, closeSync, existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { KinesisStreamEvent } from "aws-lambda";

/** What a test's record tells the handler to do when it is met. */
export interface Told {
  readonly n: number;
  /** For filters. */
  readonly side?: string;
  /** `release`: waits until the test has released it. */
  readonly act?: "throw" | "report" | "exit" | "kill" | "hang" | "release";
  /** Only in the first invocation that meets the record. */
  readonly once?: boolean;
}

/** One line of the journal. */
export interface JournalEntry {
  readonly pid: number;
  readonly numbers: number[];
  readonly keys: string[];
}

const directory = process.env.JOURNAL_DIRECTORY ?? "";

/** Writes what it is given into the journal, then does what the first telling record says. */
export const handler = async (event: KinesisStreamEvent): Promise<unknown> => {
  const records = event.Records.map(({ kinesis }) => ({
    sequenceNumber: kinesis.sequenceNumber,
    partitionKey: kinesis.partitionKey,
    told: JSON.parse(Buffer.from(kinesis.data, "base64").toString("utf8")) as Told,
  }));
  const entry: JournalEntry = {
    pid: process.pid,
    numbers: records.map(({ told }) => told.n),
    keys: records.map(({ partitionKey }) => partitionKey),
  };
  appendFileSync(join(directory, "journal"), `${JSON.stringify(entry)}\n`);
  if (process.env.KEEP_EVENTS) appendFileSync(join(directory, "events"), `${JSON.stringify(event)}\n`);
  const telling = records.find(({ told }) => told.act !== undefined && (!told.once || first(told.n)));
  switch (telling?.told.act) {
    case "throw":
      throw new TypeError(`record ${telling.told.n}`);
    case "report":
      return { batchItemFailures: [{ itemIdentifier: telling.sequenceNumber }] };
    case "exit":
      return process.exit(1);
    case "kill":
      return process.kill(process.pid, "SIGKILL");
    case "hang":
      for (;;);
    case "release":
      while (!existsSync(join(directory, "released"))) await setTimeout(10);
      return null;
    default:
      return null;
  }
};

/** Whether this is the first to ask for a number: a file that can be created once. */
function first(n: number): boolean {
  try {
    closeSync(openSync(join(directory, `met-${n}`), "wx"));
    return true;
  } catch {
    return false;
  }
}
