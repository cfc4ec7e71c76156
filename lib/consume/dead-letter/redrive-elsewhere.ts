import type { ConsumerInstance } from "../run/consumer-instance.ts";
import { RedriveElsewhereError } from "./dead-letter-errors.ts";

/**
 * Stands for `runRedrive` in the bundle of a deployed consumer, which a redrive function stands beside
 * (`cdk/constructs/consumer-function.ts`): what is never called there need not be loaded.
 * @throws RedriveElsewhereError always.
 */
export async function runRedrive({ consumer }: Pick<ConsumerInstance, "consumer">): Promise<never> {
  throw new RedriveElsewhereError(consumer);
}

/** Stands for the metrics of a redrive, of which there is none here. */
export function redriveMetricsLine(_of: unknown, _report: unknown): void {}
