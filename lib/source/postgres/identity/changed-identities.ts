import type { SourceMessage } from "../../../change/change-stream.ts";
import { PROBE } from "../../../change/control-event.ts";
import { parsePosition } from "../../../change/position.ts";
import { shellWord } from "../../../change/printed-command.ts";
import { parseTable } from "../../../change/table-pattern.ts";
import { captures } from "../../../definition/definition.ts";
import { routeTables } from "../../../definition/route.ts";
import type { Backfills } from "../backfill/backfills.ts";
import { controlEvent } from "../backfill/delivery.ts";
import type { PostgresChangeStreamOptions } from "../change-stream-options.ts";
import { KeyColumnError } from "../decode/decode-errors.ts";
import type { HeldTopics } from "../hold/held-topics.ts";
import { barrierOf, firstHeld, type Hold } from "../hold/hold-record.ts";
import { TableRenamedError } from "../slots/slots-errors.ts";
import { isOfIdentity, TableAcceptedError, TableReplacedError } from "./identity-errors.ts";
import { compareKeys, formatKey } from "./known-tables.ts";
import { isAlike, type TableIdentities } from "./table-identities.ts";
import type { IdentityDifference } from "./table-view.ts";

/** Dependencies of `ChangedIdentities`. */
export interface ChangedIdentitiesOptions
  extends Pick<
    PostgresChangeStreamOptions,
    "pipeline" | "state" | "keeps" | "published" | "isForeign" | "log"
  > {
  readonly identities: TableIdentities;
  readonly holds: HeldTopics | undefined;
  readonly backfills: Backfills | undefined;
}

/**
 * Decides how a captured name goes on when it stands for another table, or for a table with another key: by itself, after a
 * release, or not at all.
 */
export class ChangedIdentities {
  readonly #options: ChangedIdentitiesOptions;

  constructor(options: ChangedIdentitiesOptions) {
    this.#options = options;
  }

  /** At a start: goes on by itself with tables that have taken a captured one's name, where nothing stands against it. */
  async goOn(): Promise<void> {
    for (const difference of [...this.#options.identities.differences.values()])
      await this.#goOnWith(difference);
  }

  async #goOnWith(difference: IdentityDifference): Promise<void> {
    const { pipeline, log, keeps, identities, holds, backfills } = this.#options;
    const { table, error, now, from } = difference;
    const replaced = error instanceof TableReplacedError;
    if (!keeps) return await identities.accept(table, now, from);
    const alike = isAlike(difference, identities.known);
    const reads = backfills !== undefined && ["when-needed", "always"].includes(pipeline.source.snapshot);
    // Without a claim store nothing can be held: the first change ends the stream.
    if (!replaced || (now && !alike)) return;
    if (now && reads) {
      const hold = holds?.holds.find(({ reason }) => reason.table === table);
      if (hold && isOfIdentity(hold.reason.code)) {
        holds?.releaseNow(hold.topic);
        return;
      }
      await backfills.readAnew(table);
      await identities.accept(table, now, from);
      log.warn(`${table} is read anew, with a sweep: another table has the name`);
    } else if (!holds) {
      await identities.accept(table, now, from);
      log.warn(`what was in ${table} before the name was its own is not in the stream`, {
        code: error.code,
        remedy: `tributary backfill start --table ${shellWord(table)}`,
      });
    }
  }

  /** Accepts, at a release, the table that has the name now with the key that it has now. @throws why that cannot be. */
  async accept(hold: Hold): Promise<void> {
    const { identities, backfills, published, log } = this.#options;
    const { reason } = hold;
    if (!isOfIdentity(reason.code)) return;
    const { table } = reason;
    const { now, behind } = await identities.present(table);
    const known = identities.known[table]?.at(-1);
    if (now && now.oid !== known?.oid && !published.has(now.oid)) throw new TableAcceptedError(table);
    const lost = now?.key
      .map(({ names }) => names.at(-1) as string)
      .find((name) => !now.columns.includes(name));
    if (lost !== undefined) throw new KeyColumnError({ table, column: lost, problem: "not in the table" });
    const from = firstHeld(hold);
    // A key that is what it was may have been another one for some of what is held: once, what these changes do not tell is read.
    const isNew =
      now &&
      (now.oid !== known?.oid ||
        compareKeys(known.key, now.key) !== "same" ||
        (reason.code === "KEY_CHANGED" && !(known.sweptTo !== undefined && hold.last < known.sweptTo)));
    if (isNew) await backfills?.readAnew(table);
    await identities.accept(table, now, from, isNew ? behind : undefined);
    log.warn(
      now
        ? `${table} goes on with OID ${now.oid} and the key ${formatKey(now.key)}${isNew ? ": it is read anew, with a sweep" : ""}`
        : `${table} is not captured any more: no table has the name`,
    );
  }

  /** The message that consumers must have passed before a release: who has passed it holds nothing of the time before. */
  barrier(hold: Hold): SourceMessage | undefined {
    const { table, code } = hold.reason;
    if (!isOfIdentity(code)) return undefined;
    const { pipeline, state } = this.#options;
    const name = parseTable(table);
    const { epoch, commitLsn, ordinal } = parsePosition(barrierOf(hold));
    return controlEvent(
      PROBE,
      { slot: state.slot, table, id: `hold ${hold.topic}` },
      {
        ...{ pipeline: pipeline.name, database: state.database, epoch },
        ...{ lsn: commitLsn, ordinal, table: name },
        ...{ topic: routeTables(pipeline)(name).topic, nowMs: Date.now() },
      },
    );
  }

  /** Holds the topics of tables that are other ones from `received` on. Returns what ends the stream instead. */
  async hold(received: bigint): Promise<unknown> {
    const { pipeline, state, keeps, identities, holds } = this.#options;
    for (const { table, error, from, now } of identities.takeDue(received)) {
      const { code, message, remedy } = error;
      const topic = routeTables(pipeline)(parseTable(table)).topic.name;
      // In a pipeline of several slots, another one may write the topic of the name that it has now.
      const renamed =
        error instanceof TableReplacedError && error.called
          ? this.#foreignTopic(error.called, received)
          : undefined;
      if (renamed !== undefined) return new TableRenamedError(state.slot, renamed);
      try {
        if (!keeps) await identities.accept(table, now, from);
        else if (holds) await holds.hold(topic, { code, message, remedy, table, position: from }, from);
        else if (error instanceof TableReplacedError) return error;
      } catch (failure) {
        return failure;
      }
    }
    return undefined;
  }

  /** The topic of a captured name, where another slot may write it. */
  #foreignTopic(table: string, received: bigint): string | undefined {
    const { pipeline, isForeign } = this.#options;
    const name = parseTable(table);
    if (!captures(pipeline.source, name)) return undefined;
    const topic = routeTables(pipeline)(name).topic.name;
    return isForeign?.(topic, received) ? topic : undefined;
  }
}
