import type { Backfills } from "./backfill/backfills.ts";
import { isCaptured, type PostgresChangeStreamOptions } from "./change-stream-options.ts";
import { PartitionWatch } from "./contract/partition-watch.ts";
import { PublicationWatch } from "./contract/publication-watch.ts";
import { CatalogLookupError } from "./decode/decode-errors.ts";
import type { TableIdentities } from "./identity/table-identities.ts";
import type { SideConnection } from "./link/side-connection.ts";
import type { Confirmation } from "./slot/confirmation.ts";
import { Heartbeat, heartbeatSql } from "./slot/heartbeat.ts";
import { LeftoverSlots } from "./slot/leftover-slots.ts";
import type { SlotLink } from "./slot/slot-link.ts";
import { type SlotSighting, SlotWatch } from "./slot/slot-watch.ts";
import type { SourceStatus } from "./source-status.ts";

/** Dependencies of `SourceWatch`. */
export interface SourceWatchOptions {
  readonly stream: PostgresChangeStreamOptions;
  readonly side: SideConnection;
  readonly link: () => SlotLink;
  readonly confirmation: Confirmation;
  readonly identities: TableIdentities;
  readonly backfills: () => Backfills | undefined;
  /** Aborts when the stream ends. */
  readonly signal: AbortSignal;
  readonly onFailure: (error: unknown) => void;
}

/**
 * Looks at what the log does not tell, each time the slot is seen: the slot's health, the publication and its partitions, the
 * tables that captured names stand for, slots that were left behind; and carries an idle slot along.
 */
export class SourceWatch {
  readonly #options: SourceWatchOptions;
  readonly #slot: SlotWatch;
  readonly #leftovers: LeftoverSlots;
  readonly #publication: PublicationWatch;
  readonly #partitions: PartitionWatch;
  readonly #heartbeat: Heartbeat;
  #looking = false;

  constructor(options: SourceWatchOptions) {
    this.#options = options;
    const { stream, side, confirmation, signal } = options;
    const { connection, pipeline, state, contract, unhealed, serverVersion, log } = stream;
    const query = (sql: string) => side.query(sql);
    this.#slot = new SlotWatch(log);
    this.#leftovers = new LeftoverSlots(connection, state.slot, log, signal);
    this.#publication = new PublicationWatch({
      name: state.publication,
      oid: state.publicationOid,
      terms: state.terms,
      seen: state.termsSeen,
      tables: contract,
      others: stream.others,
      version: serverVersion,
      captures: (table) => isCaptured(stream, table),
      query,
      log,
      note: (losses) => unhealed.note(losses),
      store: (terms, termsSeen) => confirmation.onContract({ terms, termsSeen }),
      saw: (seen) => confirmation.sawTerms(seen),
    });
    this.#partitions = new PartitionWatch({
      tables: contract,
      leaves: state.leaves,
      seen: state.termsSeen,
      removed: pipeline.source.partitions.removed,
      readsAttached: stream.backfill !== undefined && pipeline.source.snapshot !== "never",
      query,
      log,
      received: () => options.link().received,
      truncates: () => confirmation.state.truncates ?? [],
      note: (losses) => unhealed.note(losses),
      store: (leaves, termsSeen) => confirmation.onContract({ leaves, termsSeen }),
    });
    this.#heartbeat = new Heartbeat(() => query(heartbeatSql(serverVersion)), log);
  }

  /** The slot's part of the status. */
  get status(): Pick<SourceStatus, "leftoverSlots"> & SlotWatch["health"] {
    const { hosts } = this.#options.stream.connection;
    return { leftoverSlots: hosts && this.#leftovers.found, ...this.#slot.health };
  }

  /** Takes what the server says of the slot, and looks at everything else without being waited for. */
  onSlot(sighting: SlotSighting): void {
    const { link, confirmation, backfills, onFailure } = this.#options;
    const { received, isWaiting } = link();
    const { atMs, slot, serverLsn } = sighting;
    this.#slot.take(sighting);
    backfills()?.slot(slot, serverLsn);
    void this.#leftovers.look(atMs);
    this.#lookAtContract().catch(onFailure);
    void this.#lookAtTables();
    const waiting = isWaiting && confirmation.acknowledged >= received;
    void this.#heartbeat.look({ atMs, serverLsn, receivedLsn: received, waiting });
  }

  /** Looks whether publication and partitions are what they were, ends what a backfill has healed, and asks for those that are to come by themselves. */
  async #lookAtContract(): Promise<void> {
    const { stream, signal, backfills } = this.#options;
    if (this.#looking || signal.aborted) return;
    this.#looking = true;
    try {
      const seen = await this.#publication.look();
      if (seen) await this.#partitions.look(seen);
      const wanted = await stream.unhealed.look(backfills()?.reports ?? []);
      for (const table of wanted) await backfills()?.want(table);
    } finally {
      this.#looking = false;
    }
  }

  /** That the catalog did not answer is passed over: the next look tells. */
  async #lookAtTables(): Promise<void> {
    try {
      await this.#options.identities.lookAtAll();
    } catch (error) {
      if (!(error instanceof CatalogLookupError)) this.#options.onFailure(error);
    }
  }
}
