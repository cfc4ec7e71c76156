import { TributaryError } from "../../errors.ts";

/** Where in a message its bytes are not what the protocol says. */
export interface Malformation {
  /** The message: `Relation`, `Insert`… */
  readonly type: string;
  /** Byte offset inside the message. */
  readonly offset: number;
  readonly expected: string;
  readonly got: string;
}

const REPORT =
  "Check that the publication's server is PostgreSQL 14 or newer and that no proxy stands between; then report it with the server's version.";

/** The bytes of a replication message are not of the form that PostgreSQL documents. */
export class MalformedMessageError extends TributaryError {
  readonly code = "PGOUTPUT_MALFORMED";
  readonly retry = "stop";
  readonly malformation: Malformation;

  constructor(malformation: Malformation) {
    const { type, offset, expected, got } = malformation;
    super({
      message: `pgoutput ${type} message, offset ${offset}: expected ${expected}, got ${got}`,
      remedy: REPORT,
    });
    this.malformation = malformation;
  }
}
