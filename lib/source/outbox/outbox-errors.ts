import { defineError } from "../../change/tributary-error.ts";

/** The database refuses what a relay asks of its tables. */
export class OutboxRelayError extends defineError("OUTBOX_RELAY", "stop").from((cause: Error) => ({
  message: `the outbox relay's statement is refused: ${cause.message}`,
  remedy: "See what is missing: tributary outbox plan; it also prints the grants that the role needs.",
  cause,
})) {}

/** A row of the outbox stands in another lane than its aggregate's partition belongs to: two relays could publish it out of order. */
export class OutboxLaneError extends defineError("OUTBOX_LANE", "stop").from(
  (facts: { lane: number; partition: number; partitions: number }) => ({
    message: `a row of the outbox in lane ${facts.lane} belongs to partition ${facts.partition} of ${facts.partitions}, which is another lane's`,
    remedy:
      "The table was installed for another number of partitions, or its column lane was changed: tributary outbox plan prints how to make it anew.",
  }),
) {}

/** A row of the outbox that a relay reads is no event; the constraints that the table is made with refuse such. `problem` names fields, never values. */
export class OutboxRowError extends defineError("OUTBOX_ROW", "stop").from(
  (seq: string, problem: string) => ({
    message: `the outbox row ${seq} is no event: ${problem}`,
    remedy:
      'Correct or delete the row, and put the constraints of tributary outbox plan back. Or set source.malformed to "quarantine": it then goes, whole, to the topic $outbox-malformed.',
  }),
) {}

/** A relay's session with the database was lost, or could not be opened: it goes on with another. */
export class OutboxDatabaseError extends defineError("OUTBOX_DATABASE", "retry").from((cause: Error) => ({
  message: `the outbox relay lost its session with the database: ${cause.message}`,
  remedy:
    "Nothing to do: it is opened anew, and nothing is lost meanwhile. When it repeats, look at the network between.",
  cause,
})) {}
