import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { type Consumer, consumer } from "../../../lib/consume/api/consumer.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import type { InvocationReport } from "../../../lib/consume/run/observer.ts";
import { memoryQueue } from "./memory-queue.ts";
import { type CallFault, MemoryTable } from "./memory-table.ts";

/** How a test's consumer differs from one that parks after the first call. */
export interface MemoryOptions {
  readonly poison?: "park" | "skip" | "stop";
  readonly attempts?: number;
  readonly logErrors?: boolean;
  /** Where claims are stored. */
  readonly claims?: string;
  readonly step?: (when: "before" | "after", what: string) => Promise<CallFault>;
}

/** A consumer "c" of pipeline "p" on a state table in memory; `build` registers its handlers. */
export async function memoryConsumer(
  build: (c: Consumer) => unknown,
  { poison = "park", attempts = 1, logErrors = false, claims, step = async () => "none" }: MemoryOptions = {},
) {
  const table = new MemoryTable();
  const plain = table.client(async () => "none");
  await registerConsumers(plain, "t", "p", [{ name: "c", topics: ["*"] }], START_OF_HISTORY);
  /** Bodies of the messages that the queue took. */
  const letters: string[] = [];
  const lines: Record<string, unknown>[] = [];
  const reports: InvocationReport[] = [];
  /** A function of the same consumer with other handlers, as if it was deployed anew. */
  const deploy = (handlers: (c: Consumer) => unknown) => {
    const c = consumer("c");
    handlers(c);
    return c.handler({
      environment: {
        TRIBUTARY_STATE_TABLE: "t",
        TRIBUTARY_PIPELINE_NAME: "p",
        TRIBUTARY_POISON: poison,
        TRIBUTARY_ATTEMPTS: String(attempts),
        TRIBUTARY_LOG_ERRORS: String(logErrors),
        TRIBUTARY_DEAD_LETTER_QUEUE_URL: "https://sqs.us-east-1.amazonaws.com/1/letters",
        ...(claims === undefined ? {} : { TRIBUTARY_CLAIM_BUCKET: claims }),
      },
      dynamodb: table.client(step),
      sqs: memoryQueue((body) => letters.push(body)),
      observer: { invocation: (report) => void reports.push(report) },
      write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>),
    });
  };
  return { handler: deploy(build), deploy, table, plain, letters, lines, reports };
}

/** A Lambda context with so many milliseconds left. */
export function timeLeft(ms = 10_000): { getRemainingTimeInMillis(): number } {
  const end = performance.now() + ms;
  return { getRemainingTimeInMillis: () => Math.max(0, end - performance.now()) };
}
