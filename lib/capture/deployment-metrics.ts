import { metricsLine } from "../telemetry/emf.ts";
import { CAPTURE_METRIC } from "../telemetry/metrics.ts";
import { type CapturePublisherOptions, captureDimensions } from "./capture-metrics.ts";

/** Settings of `tellDeploying`. */
export interface DeployingOptions extends CapturePublisherOptions {
  /** As `metrics` of the source kind: which metric says that the source is read. */
  readonly metrics: "slots" | "tables";
}

/**
 * Begins to tell that the task lives, while it waits for the end of the stack's first deploy: the alarms of a dead task stand by then, and
 * there is to be no slot yet. Returns what ends it. A task that waits for nothing must not call it: one that comes and goes would look alive.
 */
export function tellDeploying(options: DeployingOptions): () => void {
  const metric = CAPTURE_METRIC[options.metrics === "slots" ? "slotActive" : "sourceConnected"];
  const tell = () =>
    options.write(metricsLine("capture-deploying", captureDimensions(options), [[metric, 1]]));
  tell();
  const timer = setInterval(tell, options.seconds * 1000);
  return () => clearInterval(timer);
}
