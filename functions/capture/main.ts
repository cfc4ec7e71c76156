import { dynamodbClient, kinesisClient, sqsClient } from "../../lib/aws/clients.ts";
import { runCapture } from "../../lib/capture/capture.ts";
import { CapturePublisher, metricsSecondsFromEnvironment } from "../../lib/capture/capture-metrics.ts";
import { CaptureReporter, listening } from "../../lib/capture/capture-reporter.ts";
import { ConsumerWatch } from "../../lib/capture/consumer-watch.ts";
import { CAPTURE_DEAD_LETTER_VARIABLE, CaptureDeadLetterQueue } from "../../lib/capture/dead-letters.ts";
import { tellDeploying } from "../../lib/capture/deployment-metrics.ts";
import { PausePublisher } from "../../lib/capture/pause-metrics.ts";
import { withRemedies } from "../../lib/capture/remedy-log.ts";
import { problemsOf } from "../../lib/change/error-text.ts";
import {
  ConfigurationError,
  type ConfigurationProblem,
  TributaryError,
} from "../../lib/change/tributary-error.ts";
import { claimStoreFromEnvironment } from "../../lib/claim-check/open-claim-store.ts";
import { databaseConnection } from "../../lib/credentials/database-connection.ts";
import { standbyConnection } from "../../lib/credentials/standby-connection.ts";
import { readDefinition } from "../../lib/definition/file.ts";
import { sourceKind } from "../../lib/source/index.ts";
import { explainSessionError } from "../../lib/source/postgres/link/connection-errors.ts";
import { slotFromEnvironment } from "../../lib/source/postgres/slots/slot-number.ts";
import { AWAIT_DEPLOYMENT_VARIABLE, awaitDeployment } from "../../lib/state/deployment.ts";
import { leaseFromEnvironment } from "../../lib/state/lease.ts";
import { kinesisStream } from "../../lib/stream/kinesis/kinesis-stream.ts";
import { HEALTH_FILE_VARIABLE, HealthBeat } from "../../lib/telemetry/health.ts";
import { captureStartsLine, powertoolsLog } from "../../lib/telemetry/log.ts";
import { stageFromEnvironment } from "../../lib/telemetry/stage.ts";

/*
 * The capture task: one process, configured by its environment, until SIGTERM. Prints JSON lines. Exit code 0 after a
 * signal, 1 when starting again may help, 2 when an operator must act first.
 */

const write = (line: string) => void process.stdout.write(`${line}\n`);
let reporter: CaptureReporter | undefined;
const log = listening(withRemedies(powertoolsLog("capture", write)), (what, message, code) =>
  reporter?.waiting(what, message, code),
);
const stopping = new AbortController();
for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => stopping.abort());
// Started by a host over a channel: end with it.
process.once("disconnect", () => stopping.abort());

const healthFile = process.env[HEALTH_FILE_VARIABLE];
if (healthFile) {
  new HealthBeat(healthFile, ({ message }) => log.warn(`the health file cannot be written: ${message}`));
}

let metrics: CapturePublisher | undefined;
let failure: unknown;
try {
  // Counted by an alarm, also where what follows fails: cdk/constructs/pipeline-alarms.ts.
  write(captureStartsLine("capture"));
  const { definition, stream, stateTable, leaseMs, metricsSeconds } = readEnvironment(process.env);
  const pipeline = await readDefinition(definition);
  const kind = sourceKind(pipeline.source);
  const slot = slotFromEnvironment(process.env, kind.tasks(pipeline.source).length);
  const measured = { stage: stageFromEnvironment(process.env), pipeline: pipeline.name };
  const publisher = new CapturePublisher({ ...measured, slot, seconds: metricsSeconds, write });
  metrics = publisher;
  const pauses = new PausePublisher({
    ...{ ...measured, seconds: metricsSeconds, write },
    retentionHours: pipeline.stream.retentionHours,
  });
  const dynamodb = dynamodbClient();
  reporter = new CaptureReporter({
    ...{ dynamodb, table: stateTable, pipeline: pipeline.name, slot },
    shared: kind.reading.by === "lanes",
    log,
  });
  const connection = await databaseConnection(process.env, stopping.signal);
  const standby = await standbyConnection(process.env, stopping.signal);
  if (process.env[AWAIT_DEPLOYMENT_VARIABLE]) {
    const { signal } = stopping;
    // What a first deploy must fail for is found here, before anything is made.
    await kind.check({ connection, pipeline, slot, signal });
    const wait = { dynamodb, table: stateTable, pipeline: pipeline.name, signal };
    let told: (() => void) | undefined;
    const begin = (line: string) => {
      log.info(line, { waitsFor: "deployment" });
      told = tellDeploying({ ...measured, slot, seconds: metricsSeconds, write, metrics: kind.metrics });
    };
    await awaitDeployment({ ...wait, log: begin }).finally(() => told?.());
  }
  // Each slot's task tells of all consumers: alarms ask for the greatest value, and any of the tasks may be down.
  const { name, consumers } = pipeline;
  const place = { dynamodb, table: stateTable, pipeline: name };
  new ConsumerWatch({ ...place, ...measured, consumers, log, write }).start(stopping.signal);
  const claims = await claimStoreFromEnvironment(process.env);
  const queue = process.env[CAPTURE_DEAD_LETTER_VARIABLE];
  await runCapture(
    {
      pipeline,
      slot,
      connection,
      standby,
      stream: kinesisStream(kinesisClient(), stream),
      dynamodb,
      stateTable,
      leaseMs,
      claims,
      deadLetters: queue ? new CaptureDeadLetterQueue(sqsClient(), queue, claims) : undefined,
      log,
      report: reporter,
      // Each slot's task: the alarm asks for the greatest value, and any of them may be down.
      onPauses: (latest) => pauses.take(latest),
      onMetrics: (latest) => {
        publisher.take(latest);
        reporter?.take(latest);
      },
    },
    stopping.signal,
  );
  process.exitCode = 0;
} catch (thrown) {
  if (!stopping.signal.aborted) {
    const error = explainSessionError(thrown);
    failure = error;
    const ours = error instanceof TributaryError ? error : undefined;
    log.error(ours ? ours.message : "the capture task failed", {
      error: (error as Error).name,
      code: ours?.code,
      retry: ours?.retry,
      remedy: ours?.remedy,
      problems: ours && problemsOf(ours),
      stack: ours ? undefined : (error as Error).stack,
    });
    process.exitCode = ours?.retry === "stop" ? 2 : 1;
  }
}
metrics?.flush();
await reporter?.end(failure);
// What still holds the event loop (sockets of the AWS clients) must not hold the task.
process.exit();

function readEnvironment(environment: NodeJS.ProcessEnv) {
  const required = {
    definition: ["TRIBUTARY_PIPELINE", "the file of the pipeline definition"],
    stream: ["TRIBUTARY_STREAM", "the name of the Kinesis stream"],
    stateTable: ["TRIBUTARY_STATE_TABLE", "the name of the state table"],
  } as const;
  const value = (name: keyof typeof required) => environment[required[name][0]] ?? "";
  const problems: ConfigurationProblem[] = Object.values(required)
    .filter(([variable]) => !environment[variable])
    .map(([variable, what]) => ({ path: variable, value: undefined, remedy: `set it to ${what}` }));
  const { leaseMs, problem } = leaseFromEnvironment(environment);
  const metrics = metricsSecondsFromEnvironment(environment);
  for (const wrong of [problem, metrics.problem]) if (wrong) problems.push(wrong);
  if (problems.length > 0) throw new ConfigurationError("The capture task's environment", problems);
  return {
    definition: value("definition"),
    stream: value("stream"),
    stateTable: value("stateTable"),
    leaseMs,
    metricsSeconds: metrics.seconds,
  };
}
