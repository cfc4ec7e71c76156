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
export type { TableName } from "./change/table-pattern.ts";
export { ConfigurationError, TributaryError } from "./change/tributary-error.ts";
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
} from "./consume/api/consumer.ts";
export type { HandlerContext, Logger } from "./consume/api/context.ts";
export { FailedEvents, SinkUnavailableError } from "./consume/api/handler-errors.ts";
export { Operation } from "./consume/api/operation.ts";
export {
  JSON_NULL,
  type SinkRow,
  type VerifiableSink,
  type VerifiableTable,
} from "./consume/api/verifiable-sink.ts";
export type { RedrivenLetter, RedriveReport, RedriveRequest } from "./consume/dead-letter/redrive-request.ts";
export type { ChangeEvent, ColumnValue, EventFacts, LogicalMessage, Row } from "./consume/run/event.ts";
export type { CommitToEffect, ConsumerObserver, InvocationReport } from "./consume/run/observer.ts";
export type { Sweep } from "./consume/run/sweep.ts";
