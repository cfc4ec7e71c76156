import { dynamodbClient, kinesisClient } from "../../lib/aws.ts";
import { runCapture } from "../../lib/capture.ts";
import { claimStoreFromEnvironment } from "../../lib/claim/open-claim-store.ts";
import { readDefinition } from "../../lib/definition-file.ts";
import { ConfigurationError, type ConfigurationProblem, TributaryError } from "../../lib/errors.ts";
import { captureMetricsLine } from "../../lib/observe/capture-metrics.ts";
import { jsonLog } from "../../lib/observe/log.ts";
import { connectionFromEnvironment } from "../../lib/source/postgres/connection.ts";
import { leaseFromEnvironment } from "../../lib/state/lease.ts";

/*
 * The capture task: one process, configured by its environment, until SIGTERM. Prints JSON lines. Exit code 0 after a
 * signal, 1 when starting again may help, 2 when an operator must act first.
 */

const log = jsonLog((line) => process.stdout.write(`${line}\n`));
const stopping = new AbortController();
for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => stopping.abort());
// Started by a host over a channel: end with it.
process.once("disconnect", () => stopping.abort());

try {
  const { pipeline, stream, stateTable, leaseMs } = readEnvironment(process.env);
  await runCapture(
    {
      pipeline: await readDefinition(pipeline),
      connection: connectionFromEnvironment(process.env),
      kinesis: kinesisClient(),
      dynamodb: dynamodbClient(),
      streamName: stream,
      stateTable,
      leaseMs,
      claims: await claimStoreFromEnvironment(process.env),
      log,
      onMetrics: (metrics) => process.stdout.write(`${captureMetricsLine(metrics)}\n`),
    },
    stopping.signal,
  );
  process.exitCode = 0;
} catch (error) {
  if (!stopping.signal.aborted) {
    const ours = error instanceof TributaryError ? error : undefined;
    log.error(ours ? ours.message : "the capture task failed", {
      error: (error as Error).name,
      code: ours?.code,
      retry: ours?.retry,
      remedy: ours?.remedy,
      stack: ours ? undefined : (error as Error).stack,
    });
    process.exitCode = ours?.retry === "stop" ? 2 : 1;
  }
}
// What still holds the event loop (sockets of the AWS clients) must not hold the task.
process.exit();

function readEnvironment(environment: NodeJS.ProcessEnv) {
  const required = {
    pipeline: ["TRIBUTARY_PIPELINE", "the file of the pipeline definition"],
    stream: ["TRIBUTARY_STREAM", "the name of the Kinesis stream"],
    stateTable: ["TRIBUTARY_STATE_TABLE", "the name of the state table"],
  } as const;
  const value = (name: keyof typeof required) => environment[required[name][0]] ?? "";
  const problems: ConfigurationProblem[] = Object.values(required)
    .filter(([variable]) => !environment[variable])
    .map(([variable, what]) => ({ path: variable, value: undefined, remedy: `set it to ${what}` }));
  const { leaseMs, problem } = leaseFromEnvironment(environment);
  if (problem) problems.push(problem);
  if (problems.length > 0) throw new ConfigurationError("The capture task's environment", problems);
  return {
    pipeline: value("pipeline"),
    stream: value("stream"),
    stateTable: value("stateTable"),
    leaseMs,
  };
}
