/**
 * tributary-cdc/testing: events as a handler gets them, Kinesis events as capture writes them, and runs of a handler in memory.
 *
 * @example
 * import { changeEvent, kinesisEvent, runHandler } from "tributary-cdc/testing";
 *
 * const placed = changeEvent({ table: "public.orders", op: "c", after: { id: "17", status: "placed" } });
 * const { applied, deadLetters, batchItemFailures } = await runHandler(handler, kinesisEvent([placed]));
 */

export type { DeadLetter } from "../../consume/dead-letter/dead-letter.ts";
export { type Change, changeEvent, type OperationOf, type SweepOptions, sweepEvent } from "./change-event.ts";
export { type KinesisEventOptions, kinesisEvent, type RecordedEvent } from "./kinesis-event.ts";
export { HandlerInMemory, type HandlerRun, type RunOptions, runHandler } from "./run-handler.ts";
