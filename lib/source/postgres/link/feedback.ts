/** Milliseconds between 1970 and 2000: PostgreSQL's clock starts in 2000. */
const POSTGRES_EPOCH_MS = 946_684_800_000;

/** Content of a status update to the server. */
export interface Feedback {
  /** End of what we received. */
  readonly written: bigint;
  /** End of what the slot may forget: R of rule 19. */
  readonly confirmed: bigint;
  /** Our clock, milliseconds since 1970; comes back in `pg_stat_replication.reply_time`. */
  readonly nowMs: number;
  /** Ask for a keepalive at once. */
  readonly replyRequested: boolean;
}

/**
 * The standby status update message. Flush and apply are both what was confirmed: a commit that waits for us by
 * `synchronous_standby_names` waits until Kinesis has the change.
 * https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-STANDBY-STATUS-UPDATE
 */
export function standbyStatusUpdate(feedback: Feedback): Buffer {
  const message = Buffer.alloc(34);
  message[0] = 0x72; // 'r'
  let { written } = feedback;
  if (written < feedback.confirmed) written = feedback.confirmed;
  message.writeBigUInt64BE(written, 1);
  message.writeBigUInt64BE(feedback.confirmed, 9);
  message.writeBigUInt64BE(feedback.confirmed, 17);
  message.writeBigInt64BE(BigInt(feedback.nowMs - POSTGRES_EPOCH_MS) * 1000n, 25);
  message[33] = feedback.replyRequested ? 1 : 0;
  return message;
}
