import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { formatLsn, parseLsn } from "../../change/lsn.ts";
import { parseRecord, positionOf } from "../../change/record.ts";
import type { AwsCall } from "../fault/aws-proxy.ts";
import { entriesOf } from "../fault/put-records.ts";
import type { ExpectedEvent } from "./check.ts";

/** What a slot confirmed, and when that was known at the latest, in milliseconds of `performance.now()`. */
interface Sample {
  readonly confirmed: bigint;
  readonly at: number;
}

/** A committed change with the events it became. */
export interface ConfirmedChange {
  readonly endLsn: bigint;
  readonly events: readonly ExpectedEvent[];
}

const SAMPLE_MS = 40;

/**
 * Proves that the slot's confirmed LSN never ran ahead of what Kinesis acknowledged: keeps when each event was
 * acknowledged to the capture task, and samples the slot all the while.
 */
export class Confirmations {
  readonly #acknowledgedAt = new Map<string, number>();
  readonly #samples: Sample[] = [];
  readonly #stopping = new AbortController();
  #sampling: Promise<void> = Promise.resolve();

  /** For `AwsFaultProxy`'s `onAnswer`: called before the answer is given to the capture task. */
  readonly onAnswer = (call: AwsCall, status: number, body: Buffer): void => {
    if (call.operation !== "PutRecords" || status !== 200) return;
    const { Records } = JSON.parse(body.toString()) as { Records: readonly { SequenceNumber?: string }[] };
    const at = performance.now();
    entriesOf(call).forEach(({ Data }, i) => {
      if (Records[i]?.SequenceNumber === undefined) return;
      const record = parseRecord(Buffer.from(Data, "base64"), JSON.parse);
      if (record.kind !== "events") return;
      for (const event of record.events) {
        const partition = event.op === "t" ? record.partition : undefined;
        const id = idOf(record.topic, positionOf(event), partition);
        if (!this.#acknowledgedAt.has(id)) this.#acknowledgedAt.set(id, at);
      }
    });
  };

  /** Samples the slot by a connection that no fault meets; a server that is away is asked again. */
  watch(databaseUrl: string, slot: string): void {
    this.#sampling = this.#sample(databaseUrl, slot);
  }

  /** The slot has confirmed this, now at the latest. */
  seen(confirmed: bigint): void {
    if (this.#samples.at(-1)?.confirmed === confirmed) return;
    this.#samples.push({ confirmed, at: performance.now() });
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#sampling;
  }

  /** How often the slot was sampled at different positions. */
  get samples(): number {
    return this.#samples.length;
  }

  /**
   * Changes that a sample found confirmed before they were acknowledged, in words; `changes` in commit order.
   */
  violations(changes: readonly ConfirmedChange[]): string[] {
    const found: string[] = [];
    let due = 0;
    let latest = Number.NEGATIVE_INFINITY;
    let last = "";
    for (const { confirmed, at } of [...this.#samples].sort((a, b) => (a.confirmed < b.confirmed ? -1 : 1))) {
      for (; due < changes.length && (changes[due] as ConfirmedChange).endLsn <= confirmed; due++) {
        for (const event of (changes[due] as ConfirmedChange).events) {
          const time = this.#timeOf(event);
          if (time > latest) [latest, last] = [time, `${event.topic} ${event.position}`];
        }
      }
      if (latest > at)
        found.push(`the slot had confirmed ${formatLsn(confirmed)} before Kinesis acknowledged ${last}`);
    }
    return found;
  }

  #timeOf({ topic, position, partitions }: ExpectedEvent): number {
    const ids =
      partitions === undefined
        ? [idOf(topic, position, undefined)]
        : Array.from({ length: partitions }, (_, partition) => idOf(topic, position, partition));
    return Math.max(...ids.map((id) => this.#acknowledgedAt.get(id) ?? Number.POSITIVE_INFINITY));
  }

  async #sample(databaseUrl: string, slot: string): Promise<void> {
    let client: pg.Client | undefined;
    while (!this.#stopping.signal.aborted) {
      try {
        if (!client) {
          client = new pg.Client({ connectionString: databaseUrl });
          client.on("error", () => {});
          await client.connect();
        }
        const { rows } = await client.query<{ confirmed: string | null }>(
          "SELECT confirmed_flush_lsn::text AS confirmed FROM pg_replication_slots WHERE slot_name = $1",
          [slot],
        );
        if (rows[0]?.confirmed) {
          this.seen(parseLsn(rows[0].confirmed));
        }
      } catch {
        await client?.end().catch(() => {});
        client = undefined;
      }
      await delay(SAMPLE_MS);
    }
    await client?.end().catch(() => {});
  }
}

function idOf(topic: string, position: string, partition: number | undefined): string {
  return `${topic}/${partition ?? ""}/${position}`;
}
