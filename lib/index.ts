/**
 * What handlers are written against.
 *
 * @example
 * import { consumer, Operation } from "tributary";
 *
 * export const handler = consumer("orders")
 *   .on("public.orders", Operation.Create, async (event, ctx) => { … })
 *   .handler();
 */

export type { JsonNullPath } from "./change/event.ts";
export {
  type BatchHandler,
  type Consumer,
  type ConsumerParts,
  consumer,
  type EventHandler,
  type KinesisHandler,
  type OnBatchOptions,
  type OnOptions,
  type RedriveHandler,
  type SweepHandler,
} from "./consume/consumer.ts";
export type { HandlerContext, Logger } from "./consume/context.ts";
export { FailedEvents, SinkUnavailableError } from "./consume/errors.ts";
export type { ChangeEvent, ColumnValue, EventFacts, LogicalMessage, Row } from "./consume/event.ts";
export type { CommitToEffect, ConsumerObserver, InvocationReport } from "./consume/observer.ts";
export { Operation } from "./consume/operation.ts";
export type { RedrivenLetter, RedriveReport, RedriveRequest } from "./consume/redrive-request.ts";
export type { Sweep } from "./consume/sweep.ts";
export {
  JSON_NULL,
  type SinkRow,
  type VerifiableSink,
  type VerifiableTable,
} from "./consume/verifiable-sink.ts";
export { ConfigurationError, TributaryError } from "./errors.ts";
