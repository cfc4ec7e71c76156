import type { PositionText } from "../../../change/position.ts";
import type { Relation } from "../decode/pgoutput/messages.ts";

/** A change that cannot become an event and was put aside: the stream goes on without it (rule 41). Names only, never values. */
export interface Aside {
  readonly topic: string;
  /** The table of the change: `public.orders`. */
  readonly table: string;
  /** Of its last ordinal. */
  readonly position: PositionText;
  readonly code: string;
  readonly message: string;
  /** Time at which it was put aside, milliseconds since 1970 UTC. */
  readonly since: number;
  /** Its dead letter is in the queue. */
  readonly sent: boolean;
  /** Its table is read again, or cannot be: nothing more is to be asked for. */
  readonly reread: boolean;
}

/** A change among those of its transaction that were put aside: slots of a pipeline count ordinals apart, and topics move between them. */
export function asidePlace(topic: string, ordinal: number): string {
  return `${ordinal} ${topic}`;
}

/**
 * Keeps which changes were put aside: from before it shows in the stream until the slot has passed it, so that a change that comes
 * again is put aside again, whatever can be decoded by then. All writes are made under the capture lease.
 * @throws CaptureLeaseLostError, StateTableError, StateTableUnavailableError
 */
export interface AsideRecord {
  list(): Promise<readonly Aside[]>;
  write(aside: Aside): Promise<void>;
  remove(aside: Aside): Promise<void>;
  /** Positions of single changes that an operator wants put aside. */
  wanted(): Promise<readonly PositionText[]>;
  /** An operator's wish is done. */
  met(position: PositionText): Promise<void>;
}

/** The dead letter of a change that was put aside, whole. Format: docs, "Formats on the wire". */
export interface AsideLetter {
  readonly pipeline: string;
  readonly topic: string;
  readonly table: string;
  /** Set if the error names one. */
  readonly column?: string;
  readonly position: PositionText;
  readonly lsn: string;
  readonly xid: number;
  /** Microseconds since 2000-01-01 UTC, as the server has it. */
  readonly commitTime: string;
  /** ISO 8601. */
  readonly putAsideAt: string;
  readonly error: { readonly code: string; readonly message: string };
  /** The relation that the message's bytes are read by. */
  readonly relation: Relation;
}

/** Takes the dead letters of capture. */
export interface AsideQueue {
  /** Durable when it resolves. `message`: the server's pgoutput message. @throws TributaryError: `retry` says whether another try may help */
  send(letter: AsideLetter, message: Buffer, signal: AbortSignal): Promise<void>;
}
