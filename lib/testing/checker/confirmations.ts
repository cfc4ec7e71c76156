import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { formatLsn, parseLsn } from "../../change/lsn.ts";
import type { PositionText } from "../../change/position.ts";
import { parseRecord, positionOf } from "../../change/record.ts";
import type { AwsCall } from "../fault/aws-proxy.ts";
import { entriesOf } from "../fault/put-records.ts";
import type { ExpectedEvent } from "./check.ts";

/** A slot's confirmed LSN, and the latest time at which it was known, in milliseconds of `performance.now()`. */
interface Sample {
  readonly confirmed: bigint;
  readonly at: number;
}

/** A committed change with the events it became. */
export interface ConfirmedChange {
  /** The slot that gives it. */
  readonly slot: string;
  readonly endLsn: bigint;
  readonly events: readonly ExpectedEvent[];
}

const SAMPLE_MS = 40;

/**
 * Proves that no slot's confirmed LSN ran ahead of what Kinesis acknowledged of its changes: keeps when each event was
 * acknowledged to a capture task, and samples the slots all the while.
 */
export class Confirmations {
  readonly #acknowledgedAt = new Map<string, number>();
  /** By slot. */
  readonly #samples = new Map<string, Sample[]>();
  readonly #held: { readonly topic: string; readonly from: PositionText; readonly to: PositionText }[] = [];
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

  /**
   * Samples the slots that `slots` names at that time, by a connection that no fault meets; a server that is away is asked
   * again, and a slot that is not there yet, too.
   */
  watch(databaseUrl: string, slots: () => readonly string[]): void {
    this.#sampling = this.#sample(databaseUrl, slots);
  }

  /** A slot has confirmed this, now at the latest. */
  seen(slot: string, confirmed: bigint): void {
    const samples = this.#samples.get(slot) ?? [];
    this.#samples.set(slot, samples);
    if (samples.at(-1)?.confirmed === confirmed) return;
    samples.push({ confirmed, at: performance.now() });
  }

  /** Changes of a topic between these positions may be confirmed before Kinesis has them: they were held. */
  excuse(topic: string, from: PositionText, to: PositionText): void {
    this.#held.push({ topic, from, to });
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#sampling;
  }

  /**
   * Changes that a sample found confirmed before they were acknowledged, in words; `changes` in commit order.
   */
  violations(changes: readonly ConfirmedChange[]): string[] {
    return [...this.#samples].flatMap(([slot, samples]) =>
      this.#violationsOf(
        slot,
        samples,
        changes.filter((change) => change.slot === slot),
      ),
    );
  }

  #violationsOf(slot: string, samples: readonly Sample[], changes: readonly ConfirmedChange[]): string[] {
    const found: string[] = [];
    let due = 0;
    let latest = Number.NEGATIVE_INFINITY;
    let last = "";
    for (const { confirmed, at } of [...samples].sort((a, b) => (a.confirmed < b.confirmed ? -1 : 1))) {
      for (; due < changes.length && (changes[due] as ConfirmedChange).endLsn <= confirmed; due++) {
        for (const event of (changes[due] as ConfirmedChange).events) {
          if (this.#wasHeld(event)) continue;
          const time = this.#timeOf(event);
          if (time > latest) [latest, last] = [time, `${event.topic} ${event.position}`];
        }
      }
      if (latest > at)
        found.push(
          `the slot ${slot} had confirmed ${formatLsn(confirmed)} before Kinesis acknowledged ${last}`,
        );
    }
    return found;
  }

  #wasHeld({ topic, position }: ExpectedEvent): boolean {
    return this.#held.some((held) => held.topic === topic && held.from <= position && position <= held.to);
  }

  #timeOf({ topic, position, partitions }: ExpectedEvent): number {
    const ids =
      partitions === undefined
        ? [idOf(topic, position, undefined)]
        : Array.from({ length: partitions }, (_, partition) => idOf(topic, position, partition));
    return Math.max(...ids.map((id) => this.#acknowledgedAt.get(id) ?? Number.POSITIVE_INFINITY));
  }

  async #sample(databaseUrl: string, slots: () => readonly string[]): Promise<void> {
    let client: pg.Client | undefined;
    while (!this.#stopping.signal.aborted) {
      try {
        if (!client) {
          client = new pg.Client({ connectionString: databaseUrl });
          client.on("error", () => {});
          await client.connect();
        }
        const { rows } = await client.query<{ slot: string; confirmed: string }>(
          `SELECT slot_name::text AS slot, confirmed_flush_lsn::text AS confirmed FROM pg_replication_slots
            WHERE slot_name = ANY ($1) AND confirmed_flush_lsn IS NOT NULL`,
          [slots()],
        );
        for (const { slot, confirmed } of rows) this.seen(slot, parseLsn(confirmed));
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
