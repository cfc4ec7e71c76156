import type { SourceMessage } from "../../../change/change-stream.ts";
import type { ClaimStore } from "../../../change/claim-store.ts";
import type { PositionText } from "../../../change/position.ts";
import { shellWord } from "../../../change/printed-command.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import type { Log } from "../../../log.ts";
import { type HeldChange, type HeldMessage, parseSegment } from "./held-change.ts";
import type { HeldTopic } from "./held-topic.ts";
import { HoldSegmentError } from "./hold-errors.ts";
import { type Hold, type HoldReason, type HoldRecord, reasonOf } from "./hold-record.ts";
import { type HoldSpill, settledOrAborted } from "./hold-spill.ts";

/** Dependencies of `HoldRelease`. */
export interface HoldReleaseOptions {
  readonly record: HoldRecord;
  readonly store: ClaimStore;
  readonly log: Log;
  /** Decodes a held message once more. @throws why it still cannot be. */
  readonly decode: (change: HeldMessage, out: SourceMessage[]) => Promise<void>;
  /** Puts a change aside that was before, or that `error` keeps from becoming an event; false: it is not to be. */
  readonly putAside?: (
    change: HeldMessage,
    error: Error | undefined,
    out: SourceMessage[],
  ) => Promise<boolean>;
  /** Resolves when rows are on record that decoding asked for again (rule 42). */
  readonly asked: () => Promise<void>;
  /** Goes on under what the hold is for, where that is an operator's to accept. @throws why it cannot be. */
  readonly accept: (hold: Hold) => Promise<void>;
}

/** Puts what a topic held into the stream, before newer changes of it, or says why that cannot be. */
export class HoldRelease {
  readonly #options: HoldReleaseOptions;
  readonly #topics: Map<string, HeldTopic>;
  readonly #spill: HoldSpill;
  readonly #signal: AbortSignal;

  /** `signal`: ends a release that is under way. */
  constructor(
    options: HoldReleaseOptions,
    topics: Map<string, HeldTopic>,
    spill: HoldSpill,
    signal: AbortSignal,
  ) {
    this.#options = options;
    this.#topics = topics;
    this.#spill = spill;
    this.#signal = signal;
  }

  /**
   * Gives what a topic held, in its order, segment by segment: each is in the stream before the next is read. Goes no
   * further once `until` aborts; the release then begins anew behind what is in the stream.
   */
  async *release(topic: HeldTopic, until: AbortSignal): AsyncGenerator<readonly SourceMessage[]> {
    const { log, record } = this.#options;
    const signal = AbortSignal.any([until, this.#signal]);
    log.info(`releasing the held topic ${topic.hold.topic}`, { changes: topic.hold.changes });
    try {
      await this.#options.accept(topic.hold);
    } catch (error) {
      if (error instanceof TributaryError && error.retry === "restart") throw error;
      await this.#refuse(topic, error);
      return;
    }
    while (!this.#spill.failed && !signal.aborted) {
      await this.#spill.all();
      const { hold } = topic;
      if (hold.first >= hold.next) {
        await record.end(hold);
        this.#topics.delete(hold.topic);
        log.info(`released the held topic ${hold.topic}`);
        return;
      }
      const segment = await this.#segment(hold).catch((error) => this.#refuse(topic, error));
      if (!segment) return;
      const out: SourceMessage[] = [];
      const { given, refused } = await this.#decode(segment.held, out);
      const stored = Promise.withResolvers<void>();
      const passed = refused
        ? { drained: given ?? hold.drained }
        : {
            drained: segment.last,
            first: hold.first + 1,
            changes: hold.changes - segment.changes,
            bytes: hold.bytes - segment.bytes,
          };
      // Noted at once: the stream may store what it was given while the task ends, and `close` writes it then.
      const onStored = () => {
        topic.hold = { ...topic.hold, ...passed };
        topic.unwritten = true;
        stored.resolve();
      };
      yield [...out, { kind: "receipt", stored: onStored }];
      await settledOrAborted(stored.promise, signal);
      if (signal.aborted) return;
      if (refused) return await this.#stopRelease(topic, { ...topic.hold, reason: refused });
      await this.writeDrained();
    }
  }

  /** Records what the stream has stored meanwhile: it is not given again after a restart. */
  async writeDrained(): Promise<void> {
    for (const topic of this.#topics.values()) {
      if (!topic.unwritten) continue;
      await this.#options.asked();
      await this.#options.record.write(topic.hold);
      topic.unwritten = false;
    }
  }

  /** A segment that cannot be read stops its topic's release, not the stream. */
  async #refuse(topic: HeldTopic, error: unknown): Promise<undefined> {
    if (!(error instanceof TributaryError) || error.retry === "retry") throw error;
    const { code, message, remedy } = error;
    const { hold } = topic;
    const reason = { ...hold.reason, code, message, remedy };
    await this.#stopRelease(topic, { ...hold, reason });
  }

  async #stopRelease(topic: HeldTopic, hold: Hold): Promise<void> {
    await this.#options.asked();
    await this.#options.record.write(hold, true);
    topic.hold = hold;
    topic.unwritten = false;
    topic.releasing = false;
    topic.barrier = false;
    const { code, message, remedy } = hold.reason;
    this.#options.log.error(`the release of ${hold.topic} stopped: ${message}`, { code, remedy });
  }

  /** The changes of the first segment that are not in the stream. */
  async #segment(hold: Hold) {
    const { record, store } = this.#options;
    const { claim, changes, last } = await record.readSegment(hold.topic, hold.first);
    const bytes = await store.get(claim, this.#signal);
    try {
      const held = parseSegment(bytes).filter(({ position }) => position > hold.drained);
      return { held, changes, last, bytes: claim.bytes };
    } catch (error) {
      throw new HoldSegmentError(hold.topic, hold.first, hold.drained, error);
    }
  }

  /**
   * Tells why a change cannot be given, if one cannot: `out` has those before it, and `given` is the last one's own position
   * (an update that is one event has the first of its two).
   */
  async #decode(
    held: readonly HeldChange[],
    out: SourceMessage[],
  ): Promise<{ given?: PositionText; refused?: HoldReason }> {
    const { putAside, log } = this.#options;
    const dropped = new Map<string, number>();
    let given: { given?: PositionText } = {};
    for (const change of held) {
      const { length } = out;
      try {
        if (change.kind === "event") out.push({ ...change, kind: "change" });
        else if (!(await putAside?.(change, undefined, out))) await this.#options.decode(change, out);
      } catch (error) {
        if (!(error instanceof TributaryError) || error.retry === "retry" || change.kind === "event")
          throw error;
        out.length = length;
        if (!(await putAside?.(change, error, out))) return { ...given, refused: reasonOf(error, change) };
      }
      if (out.length === length && change.kind === "message")
        dropped.set(change.table, (dropped.get(change.table) ?? 0) + 1);
      given = { given: change.position };
    }
    for (const [table, count] of dropped) {
      log.warn(`${count} held changes of ${table} are not given: the table is not captured any more`, {
        remedy: `To have it in the stream again, name it in source.tables, then: tributary backfill start --table ${shellWord(table)}`,
      });
    }
    return given;
  }
}
