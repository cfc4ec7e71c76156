import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { type Consumer, consumer } from "../../../lib/consume/api/consumer.ts";
import type { DeadLetter, DeadRecordLetter } from "../../../lib/consume/dead-letter/dead-letter.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import type { ConsumerObserver, InvocationReport } from "../../../lib/consume/run/observer.ts";
import { memoryQueue } from "./memory-queue.ts";
import { MemoryTable } from "./memory-table.ts";

/** What a test may change of the rig. */
interface RigOptions {
  readonly poison?: "park" | "skip" | "stop";
  readonly attempts?: number;
  /** Default: one of its own. With another's this is a second process of the same consumer. */
  readonly table?: MemoryTable;
  readonly observer?: ConsumerObserver;
  readonly step?: Parameters<MemoryTable["client"]>[0];
}

/** A consumer "c" of all topics over a state table in memory and a queue that keeps what it is sent. */
export async function rig(
  register: (consumer: Consumer) => Consumer,
  {
    poison = "park",
    attempts = 3,
    table = new MemoryTable(),
    observer,
    step = async () => "none" as const,
  }: RigOptions = {},
) {
  const registered = [{ name: "c", topics: ["*"] }];
  await registerConsumers(
    table.client(async () => "none"),
    "t",
    "p",
    registered,
    START_OF_HISTORY,
  );
  const letters: (DeadLetter & DeadRecordLetter)[] = [];
  const lines: string[] = [];
  const reports: InvocationReport[] = [];
  const handler = register(consumer("c")).handler({
    environment: {
      TRIBUTARY_STATE_TABLE: "t",
      TRIBUTARY_PIPELINE_NAME: "p",
      TRIBUTARY_POISON: poison,
      TRIBUTARY_ATTEMPTS: String(attempts),
      TRIBUTARY_DEAD_LETTER_QUEUE_URL: "https://sqs/q",
    },
    dynamodb: table.client(step),
    sqs: memoryQueue((body) => letters.push(JSON.parse(body))),
    observer: observer ?? { invocation: (report) => reports.push(report) },
    write: (line) => lines.push(line),
  });
  return { handler, table, letters, lines, reports };
}

/** The context of an invocation that may run for so long. */
export function lambdaContext(ms = 10_000): { getRemainingTimeInMillis(): number } {
  const end = performance.now() + ms;
  return { getRemainingTimeInMillis: () => Math.max(0, end - performance.now()) };
}
