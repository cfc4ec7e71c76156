import * as z from "zod";
import { eventFields, tableName } from "../../definition/source-fields.ts";

/** An outbox table that relays read: for those who may not replicate. */
export const outboxSource = z.strictObject({
  kind: z.literal("outbox"),
  /** It captures no tables but that of the outbox. */
  tables: z.array(z.never()).default([]),
  exclude: z.array(z.never()).default([]),
  /** The table that `tributary outbox install` makes. */
  table: tableName.default("public.outbox"),
  intervalMs: z.int().min(20).max(3_600_000).default(200),
  /** Rows of a lane published at once. */
  batchRows: z.int().min(1).max(10_000).default(500),
  /** Time that published rows stay in the table; 0: they are deleted when the stream has them. */
  keepHours: z
    .int()
    .min(0)
    .max(24 * 366)
    .default(0),
  /** Fate of a row that is no event: the relay stops there, or it goes whole to the topic `$outbox-malformed`. */
  malformed: z.enum(["stop", "quarantine"]).default("stop"),
  ...eventFields,
});

/** The argument of `outbox({…})`. */
export type OutboxInput = z.input<typeof outboxSource>;
/** A validated `outbox({…})`. */
export type OutboxSource = z.output<typeof outboxSource>;

/** An outbox table that relays read, where nobody may replicate: `tributary outbox install` makes it. */
export function outbox(source: Omit<OutboxInput, "kind"> = {}): OutboxInput {
  return { kind: "outbox", ...source };
}
