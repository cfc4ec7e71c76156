import { lambdaClient } from "../aws/clients.ts";
import { invokeRedrive } from "../consume/dead-letter/redrive-function.ts";
import {
  type RedriveReport,
  type RedriveRequest,
  readRedriveRequest,
} from "../consume/dead-letter/redrive-request.ts";

/**
 * Brings some parked changes to effect, and reports: a consumer's redrive function in AWS (`redriveFunction`), or its handler
 * itself, called with the request.
 */
export type Redrive = (request: RedriveRequest) => Promise<RedriveReport>;

/** Selection of a consumer's open dead letters: all of them, unless something here says otherwise. */
export type RedriveChoice = Pick<RedriveRequest, "key" | "topic" | "position"> & {
  readonly consumer: string;
};

/** Settings of `redrive`. */
export interface RedriveOptions {
  /** Give up the changes that failed, and go on with those behind them. The choice must name a key or a position then. */
  readonly discard?: boolean | undefined;
  /** End after this many changes: 1 or more. */
  readonly limit?: number | undefined;
  /** Gets the report of each step, and whether another one follows. */
  readonly onStep?: (
    report: RedriveReport,
    step: { readonly more: boolean; readonly discards: boolean },
  ) => void;
}

/** Sum of all steps of a redrive. */
export interface RedriveTotals {
  /** Changes that took effect. */
  readonly redriven: number;
  /** Changes that were given up. */
  readonly discarded: number;
  /** Keys that are parked no more. */
  readonly done: number;
  /** Keys whose change was refused, because a later one took effect. */
  readonly superseded: number;
  /** Keys that are left, by why: all 0 where the limit ended it. */
  readonly failed: number;
  readonly open: number;
  readonly busy: number;
  readonly unhandled: number;
}

/** Changes of one step, so that a step's answer comes in time. */
const STEP = 500;

/**
 * Returns a consumer's redrive function in AWS (`consumers.<name>.redriveFunction` of what `readStack` gives).
 * Its calls throw RedriveFailedError.
 */
export async function redriveFunction(functionName: string): Promise<Redrive> {
  const lambda = await lambdaClient();
  return (request) => invokeRedrive(lambda, functionName, request);
}

/**
 * Lists a consumer's open dead letters, key by key. Changes nothing.
 *
 * @example
 * const { letters } = await openDeadLetters(await redriveFunction("Shop-RedriveOrders-X1"), { consumer: "orders" });
 *
 * @throws ConfigurationError for a choice that cannot be; what `run` throws.
 */
export async function openDeadLetters(run: Redrive, choice: RedriveChoice): Promise<RedriveReport> {
  return await run(requestOf(choice, { dryRun: true }));
}

/**
 * Brings the chosen parked changes of a consumer to effect, key by key, each key in its order, until all are done or nothing
 * moves any more. May be repeated and interrupted. Correct the handler and deploy it first.
 *
 * @example
 * const totals = await redrive(await redriveFunction("Shop-RedriveOrders-X1"), { consumer: "orders", key: "17" });
 * if (leftKeys(totals) > 0) process.exitCode = 1;
 *
 * @throws ConfigurationError for a choice or a limit that cannot be; what `run` throws.
 */
export async function redrive(
  run: Redrive,
  choice: RedriveChoice,
  { discard, limit = Number.POSITIVE_INFINITY, onStep }: RedriveOptions = {},
): Promise<RedriveTotals> {
  const chosen = requestOf(choice, {
    discard,
    ...(limit === Number.POSITIVE_INFINITY ? {} : { limit }),
  });
  const totals = { redriven: 0, discarded: 0, done: 0, superseded: 0 };
  const left = () => Math.max(0, limit - totals.redriven - totals.discarded);
  const step = async (request: RedriveRequest) => {
    const report = await run({ ...request, limit: Math.min(STEP, left()) });
    totals.redriven += report.redriven;
    totals.discarded += report.discarded;
    totals.done += report.done;
    totals.superseded += report.superseded;
    return report;
  };
  // Each change by its position, so that a step whose answer is lost gives up nothing that it did not name.
  for (const named of discard ? await failedOnes(run, choice) : []) {
    for (let again = true; again && left() > 0; ) {
      const report = await step({ ...named, discard: true });
      // A function of an earlier version would give the next one up: once only.
      again = report.unhandled !== undefined && report.more && report.redriven > 0;
      onStep?.(report, { more: true, discards: true });
    }
  }
  const { discard: _, ...rest } = chosen;
  while (left() > 0) {
    const report = await step(rest);
    const more = report.more && report.redriven + report.done > 0 && left() > 0;
    onStep?.(report, { more, discards: false });
    if (more) continue;
    // Functions of earlier versions do not tell `unhandled`.
    const { failed, open, busy, unhandled = 0 } = report as Partial<RedriveReport> & RedriveReport;
    return { ...totals, failed, open, busy, unhandled };
  }
  return { ...totals, failed: 0, open: 0, busy: 0, unhandled: 0 };
}

/** Returns how many keys a redrive has left. */
export function leftKeys({ failed, open, busy, unhandled }: RedriveTotals): number {
  return failed + open + busy + unhandled;
}

function requestOf(
  { consumer, key, topic, position }: RedriveChoice,
  how: Pick<RedriveRequest, "dryRun" | "discard" | "limit">,
): RedriveRequest {
  return readRedriveRequest(
    { tributary: "redrive", consumer, key, topic, position, ...how } as RedriveRequest,
    consumer,
  );
}

/** The changes that failed among those that a choice means, each named by its position. */
async function failedOnes(run: Redrive, choice: RedriveChoice): Promise<RedriveRequest[]> {
  const { consumer, position } = choice;
  const { letters, unhandled } = await openDeadLetters(run, choice);
  return letters.flatMap((letter) => {
    const { outcome, topic, partition } = letter;
    // Functions of earlier versions name the change that began the key.
    const failed = letter.failed ?? (unhandled === undefined ? letter.position : undefined);
    const named = position ?? failed;
    return outcome === "open" && named
      ? [{ tributary: "redrive", consumer, topic, partition, position: named }]
      : [];
  });
}
