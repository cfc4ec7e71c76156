import { backoffMs } from "../../../backoff.ts";

/*
 * Decides when to say something on a replication link, when to doubt it, and when to give it up. Pure: times go in, a
 * decision comes out. All times are milliseconds of one monotonic clock.
 */

/** Time limits of a link; all of them follow from `wal_sender_timeout`. */
export interface LinkPatience {
  /** Feedback at least this often: a third of `wal_sender_timeout` would do. */
  readonly feedbackMs: number;
  /** After this much silence the server is asked for a reply. */
  readonly askMs: number;
  /** After this much silence we look at the server through another connection, and again after each `askMs`. */
  readonly lookMs: number;
  /** After this much silence a server that cannot be looked at either is given up. */
  readonly giveUpMs: number;
}

/** The patience that fits a `wal_sender_timeout`. */
export function linkPatience(walSenderTimeoutMs: number): LinkPatience {
  return {
    feedbackMs: walSenderTimeoutMs / 4,
    askMs: walSenderTimeoutMs / 2,
    lookMs: walSenderTimeoutMs,
    giveUpMs: walSenderTimeoutMs * 3,
  };
}

/** The history of a link so far. */
export interface LinkTimes {
  readonly lastFeedback: number;
  /** Since when nothing has come although we are reading; undefined while we do not read (back-pressure). */
  readonly silentSince: number | undefined;
  /** Time at which the server was last asked for a reply, if it was during this silence. */
  readonly lastAsked: number | undefined;
  /** Time of our last look through another connection, if there was one during this silence. */
  readonly lastLook: number | undefined;
}

/**
 * Decides what to do now: `look` (through another connection; feedback may be due as well and comes next), `ask` (feedback
 * that wants a reply), `feedback`, or nothing. A link that we do not read is never doubted.
 */
export function nextStep(
  times: LinkTimes,
  patience: LinkPatience,
  now: number,
): "look" | "ask" | "feedback" | undefined {
  if (times.silentSince !== undefined) {
    const silent = now - times.silentSince;
    if (silent >= patience.lookMs && now - (times.lastLook ?? -Infinity) >= patience.askMs) return "look";
    if (silent >= patience.askMs && now - (times.lastAsked ?? -Infinity) >= patience.askMs) return "ask";
  }
  return now - times.lastFeedback >= patience.feedbackMs ? "feedback" : undefined;
}

/** Our walsender as another connection sees it. */
export type ServerSighting =
  /** The slot is not held by our walsender any more. */
  | "gone"
  /** It has read a question of ours that we saw no answer to. */
  | "answered"
  /** It is there and has not come to read our question: it decodes. */
  | "busy"
  /** The other connection failed too. */
  | "unreachable";

/**
 * Returns true if a silent link is dead. A walsender may decode for 20 minutes without a word (`busy`): that is no death.
 * An answer may be on its way while we look: only the second `answered` in a row counts.
 */
export function isDead(
  sighting: ServerSighting,
  previous: ServerSighting | undefined,
  silentMs: number,
  patience: LinkPatience,
): boolean {
  switch (sighting) {
    case "gone":
      return true;
    case "answered":
      return previous === "answered";
    case "busy":
      return false;
    case "unreachable":
      return silentMs >= patience.giveUpMs;
  }
}

/**
 * Returns the wait before connection attempt number `attempt` (from 0): doubling from 100 ms to 30 s, with full
 * jitter above a tenth so that many tasks do not come back in step. `random` is from [0, 1).
 */
export function reconnectDelayMs(attempt: number, random: number): number {
  return Math.round(backoffMs(attempt + 1, { baseMs: 100, capMs: 30_000, jitter: 0.9 }, () => random));
}
