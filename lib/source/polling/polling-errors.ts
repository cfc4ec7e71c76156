import { defineError } from "../../change/tributary-error.ts";

/** More rows than keys can be held, in the tables whose deletes are looked for. */
export class KnownKeysFullError extends defineError("POLLING_KEYS_FULL", "stop").from((most: number) => ({
  message: `the tables whose deletes are looked for hold more than ${most} rows`,
  remedy: "Name the smaller ones alone in source.deletes.tables; the others are polled without.",
})) {}

/** A table has another primary key than the one that its pages go by. */
export class PolledKeyChangedError extends defineError("POLLED_KEY_CHANGED", "restart").from(
  (table: string, before: readonly string[], now: readonly string[]) => ({
    message: `the key of ${table} was (${before.join(", ")}) and is (${now.join(", ")}) now: pages in the order of the old one could pass over rows`,
    remedy: "Nothing to do: the next start reads on by the new key, and passes over nothing.",
  }),
) {}
