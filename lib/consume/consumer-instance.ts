import type { ClaimReader } from "./claim-reader.ts";
import type { ConsumerConfiguration } from "./configuration.ts";
import type { WriteLine } from "./context.ts";
import type { DeadLetterQueue } from "./dead-letter.ts";
import type { Fence } from "./fence.ts";
import type { Floors } from "./floor.ts";
import type { HoldTable } from "./hold-table.ts";
import type { MissingTable } from "./missing-changes.ts";
import type { ConsumerObserver } from "./observer.ts";
import type { Claims } from "./once.ts";
import type { ParkedPayloads } from "./parked-payload.ts";
import type { ParkingTable } from "./parking-table.ts";
import type { Invocation } from "./partition.ts";
import type { RedriveLeases } from "./redrive-lease.ts";
import type { Registry } from "./registry.ts";
import type { RunningCalls } from "./running-calls.ts";
import type { Shards } from "./shards.ts";

/** What a consumer instance keeps between invocations. */
export interface ConsumerInstance {
  readonly consumer: string;
  readonly registry: Registry;
  readonly configuration: ConsumerConfiguration;
  /** Whether a topic is one of the consumer's. */
  readonly isOwn: (topic: string) => boolean;
  readonly fence: Fence;
  readonly floors: Floors;
  readonly claims: Claims;
  readonly missing: MissingTable;
  readonly shards: Shards;
  readonly oversize: ClaimReader;
  readonly parking: ParkingTable;
  readonly payloads: ParkedPayloads;
  readonly holds: HoldTable;
  readonly leases: RedriveLeases;
  readonly running: RunningCalls;
  readonly letters: DeadLetterQueue | undefined;
  readonly observer: ConsumerObserver;
  readonly write: WriteLine;
}

/** What an instance and one invocation of it give the runs of partitions. */
export function asInvocation(
  instance: ConsumerInstance,
  own: Pick<Invocation, "deadline" | "counts" | "token">,
): Invocation {
  const { consumer, registry, configuration, letters, claims, missing, oversize, write } = instance;
  const { parking, payloads, running, shards } = instance;
  return {
    ...{ consumer, registry, configuration, letters, claims, missing, oversize, parking, payloads },
    ...{ running, shards, write, ...own },
  };
}
