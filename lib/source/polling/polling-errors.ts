import { defineError } from "../../change/tributary-error.ts";

/** More rows than keys can be held, in the tables whose deletes are looked for. */
export class KnownKeysFullError extends defineError("POLLING_KEYS_FULL", "stop").from((most: number) => ({
  message: `the tables whose deletes are looked for hold more than ${most} rows`,
  remedy: "Name the smaller ones alone in source.deletes.tables; the others are polled without.",
})) {}
