/**
 * The API of handlers.
 *
 * @example
 * import { consumer, Operation } from "tributary-cdc";
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
  consumer,
  type EventHandler,
  type KinesisHandler,
  type OnBatchOptions,
  type OnOptions,
  type RedriveHandler,
  type SweepHandler,
} from "./consume/api/consumer.ts";
export type { ConsumerParts } from "./consume/api/consumer-parts.ts";
export type { HandlerContext, Logger } from "./consume/api/context.ts";
export { FailedEvents, SinkUnavailableError } from "./consume/api/handler-errors.ts";
export type { BatchMiddleware, Middleware, Next } from "./consume/api/middleware.ts";
export { Operation } from "./consume/api/operation.ts";
export { rowsOf } from "./consume/api/schema.ts";
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
