/** An event as an application wrote it. What is JSON travels as text, so that every digit arrives. */
export interface OutboxMembers {
  /** Any text that names the event for ever. */
  readonly id: string;
  readonly aggregateType: string;
  readonly aggregateId: string;
  readonly type: string;
  /** JSON text. */
  readonly payload: string;
  /** JSON text of an object. */
  readonly headers: string;
  /** ISO 8601 as far as it has a form there: see `docs/03-values.md`. */
  readonly createdAt: string;
}
