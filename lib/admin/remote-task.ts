import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { CloudWatchLogsClient, OutputLogEvent } from "@aws-sdk/client-cloudwatch-logs";
import type { ECSClient, RunTaskCommandInput, Service, Task } from "@aws-sdk/client-ecs";
import { cloudwatchLogsClient, type Environment, ecsClient } from "../aws/clients.ts";
import { awsFailure, wasAnswered } from "../aws/failure.ts";
import { TributaryError } from "../change/tributary-error.ts";
import {
  EXIT_LINE,
  OPERATE_FILE,
  OPERATE_VARIABLE,
  type RemoteLine,
  readRemoteLine,
  SECURITY_GROUPS_LABEL,
} from "../definition/remote-program.ts";
import { awsAccessError } from "./aws-access.ts";
import { RemoteImageError, RemoteTaskError, RemoteTaskStoppedError } from "./remote-errors.ts";
import type { CaptureResources, PipelineResources } from "./resources.ts";
import { callerOf } from "./stack-resources.ts";

/** Settings of `runRemotely`. */
export interface RemoteOptions {
  /** Ends the wait, and the task. */
  readonly signal: AbortSignal;
  /** Hears of each line that the verb prints, in order. */
  readonly onLine: (line: RemoteLine) => void;
  /** Hears of what the task does meanwhile, for people. */
  readonly note: (text: string) => void;
  /** A task definition of the stack that can do more than the capture service's, which is the default. */
  readonly taskDefinition?: string;
  readonly environment?: Environment;
  readonly deadlines?: Partial<RemoteDeadlines>;
}

/** Times in milliseconds. */
export interface RemoteDeadlines {
  /** Until the task runs. */
  readonly startMs: number;
  /** Until it has ended. */
  readonly endMs: number;
  /** For the last lines of its log, once it has ended. */
  readonly logMs: number;
  /** Between two looks. */
  readonly pollMs: number;
}

const DEADLINES: RemoteDeadlines = { startMs: 300_000, endMs: 3_600_000, logMs: 30_000, pollMs: 2_000 };
/** A wait is told of at least this often. */
const NOTE_MS = 15_000;
const STOP_DEADLINE_MS = 15_000;
const START_DEADLINE_MS = 30_000;
/** https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html */
const MAX_OVERRIDES = 8_192;

/**
 * Runs a verb as a one-off Fargate task in the network of the first slot's capture service: of the service's task definition, or of another
 * one of the stack, with another command. No inbound rule is needed. Returns the exit code of the verb.
 *
 * @example
 * const code = await runRemotely(resources, ["teardown", "--confirm=shop"], { signal, onLine, note });
 *
 * @throws RemoteImageError where the deployed image cannot run verbs; RemoteTaskError where the task does not start, or is ended by others;
 * RemoteTaskStoppedError at a deadline or with the signal; AwsCredentialsError, AwsRightMissingError, AwsUnavailableError.
 */
export async function runRemotely(
  resources: Pick<PipelineResources, "captures" | "place">,
  command: readonly string[],
  options: RemoteOptions,
): Promise<number> {
  const [capture] = resources.captures;
  if (!capture) throw new RemoteImageError("of capture", `${resources.place} names no service`);
  const ecs = await ecsClient(options.environment);
  const logs = await cloudwatchLogsClient(options.environment);
  try {
    return await new RemoteTask(ecs, logs, capture, options).run(command);
  } finally {
    ecs.destroy();
    logs.destroy();
  }
}

/** The container that runs the verb. */
interface VerbContainer {
  readonly name: string;
  readonly log: LogPlace;
  /** Beside the service's. */
  readonly securityGroups: readonly string[];
}

/** Place of the log of a task's container. */
interface LogPlace {
  readonly group: string;
  readonly prefix: string;
  readonly container: string;
}

class RemoteTask {
  readonly #ecs: ECSClient;
  readonly #logs: CloudWatchLogsClient;
  readonly #capture: CaptureResources;
  readonly #options: RemoteOptions;
  readonly #times: RemoteDeadlines;
  #nextToken: string | undefined;
  /** The line that continues a long one belongs to the same stream. */
  #last: RemoteLine["stream"] = "stdout";
  #exit: number | undefined;

  constructor(ecs: ECSClient, logs: CloudWatchLogsClient, capture: CaptureResources, options: RemoteOptions) {
    this.#ecs = ecs;
    this.#logs = logs;
    this.#capture = capture;
    this.#options = options;
    this.#times = { ...DEADLINES, ...options.deadlines };
  }

  async run(command: readonly string[]): Promise<number> {
    const { note, signal } = this.#options;
    const { input, log } = await this.#prepared(command);
    const arn = await this.#start(input);
    const id = arn.split("/").at(-1) ?? arn;
    note(
      `runs as the task ${id} of the cluster ${this.#capture.cluster}, in the deployed image, with its own definition`,
    );
    try {
      const task = await this.#ended(arn, id, log);
      return await this.#exitCode(task, id, log);
    } catch (error) {
      if (signal.aborted || error instanceof RemoteTaskStoppedError) await this.#stop(arn);
      // A verb is not cut short because this side cannot see it.
      else if (!(error instanceof RemoteTaskError))
        note(`the task goes on: its log is ${streamOf(log, id)} of the group ${log.group}`);
      throw signal.aborted ? new RemoteTaskStoppedError(id, "given up") : error;
    }
  }

  /** What is found before anything runs. */
  async #prepared(
    command: readonly string[],
  ): Promise<{ readonly input: RunTaskCommandInput; readonly log: LogPlace }> {
    const { signal } = this.#options;
    try {
      const service = await this.#service();
      const taskDefinition = this.#options.taskDefinition ?? service.taskDefinition;
      const container = await this.#container(taskDefinition);
      signal.throwIfAborted();
      const input = runInput(this.#capture, { ...service, taskDefinition }, container, command);
      return { input, log: container.log };
    } catch (error) {
      throw signal.aborted ? new RemoteTaskStoppedError(undefined, "given up") : error;
    }
  }

  async #service(): Promise<Service> {
    const { cluster, service } = this.#capture;
    const { DescribeServicesCommand } = await import("@aws-sdk/client-ecs");
    const { services } = await this.#call("ecs:DescribeServices", (abort) =>
      this.#ecs.send(new DescribeServicesCommand({ cluster, services: [service] }), abort),
    );
    const found = services?.[0];
    if (!found?.taskDefinition || found.status === "INACTIVE")
      throw new RemoteImageError(service, `there is no such service in the cluster ${cluster}`);
    return found;
  }

  /** @throws RemoteImageError where the task definition is not one that can run verbs */
  async #container(taskDefinition: string | undefined): Promise<VerbContainer> {
    const { service } = this.#capture;
    const { DescribeTaskDefinitionCommand } = await import("@aws-sdk/client-ecs");
    const { taskDefinition: found } = await this.#call("ecs:DescribeTaskDefinition", (abort) =>
      this.#ecs.send(new DescribeTaskDefinitionCommand({ taskDefinition }), abort),
    );
    const container = found?.containerDefinitions?.find(({ environment = [] }) =>
      environment.some(({ name }) => name === OPERATE_VARIABLE),
    );
    const { name } = container ?? {};
    if (name === undefined)
      throw new RemoteImageError(service, "it was deployed by a version that could not do that");
    const { "awslogs-group": group, "awslogs-stream-prefix": prefix } =
      container?.logConfiguration?.options ?? {};
    if (!group || !prefix) throw new RemoteImageError(service, "its log is not in CloudWatch Logs");
    const log = { group, prefix, container: name };
    // Found before anything runs: whether the log may be read.
    await this.#events("none", log);
    const securityGroups = container?.dockerLabels?.[SECURITY_GROUPS_LABEL]?.split(",") ?? [];
    return { name, log, securityGroups };
  }

  /** The signal does not end it: a task that was asked for may run, and only the answer names it. */
  async #start(input: RunTaskCommandInput): Promise<string> {
    const { RunTaskCommand } = await import("@aws-sdk/client-ecs");
    const { tasks, failures } = await this.#call(
      "ecs:RunTask",
      (abort) => this.#ecs.send(new RunTaskCommand(input), abort),
      AbortSignal.timeout(START_DEADLINE_MS),
    ).catch((error: unknown) => {
      const isAnswered = error instanceof TributaryError && error.code !== "AWS_UNAVAILABLE";
      if (isAnswered || wasAnswered((error as Error).cause)) throw error;
      const what = `ECS did not answer the call that starts the task: it may run in the cluster ${this.#capture.cluster}, started by ${input.startedBy}`;
      throw new RemoteTaskError(what, awsFailure((error as Error).cause ?? error));
    });
    const arn = tasks?.[0]?.taskArn;
    if (arn !== undefined) return arn;
    const [failure] = failures ?? [];
    throw new RemoteTaskError("the task was not started", failure?.reason ?? "ECS does not say why");
  }

  /** Waits until the task has ended, and gives its lines meanwhile. */
  async #ended(arn: string, id: string, log: LogPlace): Promise<Task> {
    const { note, signal } = this.#options;
    const begun = performance.now();
    let state = "";
    let noted = begun;
    for (;;) {
      const task = await this.#describe(arn);
      const status = task.lastStatus ?? "";
      const now = performance.now();
      const isRunning = !/^(|PROVISIONING|PENDING|ACTIVATING)$/.test(status);
      if (isRunning) await this.#printLog(id, log);
      // Its end is told by the verb; ECS takes half a minute longer.
      if (status === "STOPPED" || this.#exit !== undefined) return task;
      if (status !== state || now - noted > NOTE_MS) {
        if (!isRunning || status !== state)
          note(`the task is ${status.toLowerCase()} (${Math.round((now - begun) / 1000)} s)`);
        [state, noted] = [status, now];
      }
      const late = isRunning ? this.#times.endMs : this.#times.startMs;
      if (now - begun > late)
        throw new RemoteTaskStoppedError(
          id,
          `it did not ${isRunning ? "end" : "start"} within ${late / 1000} s`,
        );
      await sleep(this.#times.pollMs, undefined, { signal });
    }
  }

  async #exitCode(task: Task, id: string, log: LogPlace): Promise<number> {
    if (this.#exit !== undefined) return this.#exit;
    const container = task.containers?.find(({ name }) => name === log.container);
    const { exitCode, reason } = container ?? {};
    if (exitCode === undefined) {
      const why = [task.stoppedReason, reason].filter((text) => text).join("; ");
      throw new RemoteTaskError(`the task ${id} did not run`, why || "ECS does not say why");
    }
    // CloudWatch has the last lines some seconds later.
    const latest = performance.now() + this.#times.endMs;
    const end = () => Math.min(performance.now() + this.#times.logMs, latest);
    let until = end();
    while (this.#exit === undefined && performance.now() < until) {
      if (await this.#printLog(id, log)) {
        until = end();
        continue;
      }
      if (this.#exit === undefined)
        await sleep(this.#times.pollMs, undefined, { signal: this.#options.signal });
    }
    if (this.#exit === undefined) {
      const why = [`exit code ${exitCode}`, reason, task.stoppedReason].filter((text) => text).join("; ");
      throw new RemoteTaskError(
        `the task ${id} ended, and its log (group ${log.group}) does not say how the verb did`,
        why,
      );
    }
    return this.#exit;
  }

  /** Gives the lines that are new. Returns whether there were any. */
  async #printLog(id: string, log: LogPlace): Promise<boolean> {
    const events = await this.#events(id, log);
    for (const { message = "" } of events) {
      const line = readRemoteLine(message, this.#last);
      this.#last = line.stream;
      const [, code] = line.isOurs && line.stream === "stdout" ? (EXIT_LINE.exec(line.text) ?? []) : [];
      if (code === undefined) this.#options.onLine(line);
      else this.#exit = Number(code);
    }
    return events.length > 0;
  }

  /** Reads on in a task's log. Its stream begins with its first line. */
  async #events(id: string, log: LogPlace): Promise<readonly OutputLogEvent[]> {
    const { GetLogEventsCommand } = await import("@aws-sdk/client-cloudwatch-logs");
    const command = new GetLogEventsCommand({
      logGroupName: log.group,
      logStreamName: streamOf(log, id),
      startFromHead: true,
      ...(this.#nextToken && { nextToken: this.#nextToken }),
    });
    const answer = await this.#call("logs:GetLogEvents", async (abort) => {
      try {
        return await this.#logs.send(command, abort);
      } catch (error) {
        if (error instanceof Error && error.name === "ResourceNotFoundException") return undefined;
        throw error;
      }
    });
    this.#nextToken = answer?.nextForwardToken ?? this.#nextToken;
    return answer?.events ?? [];
  }

  async #describe(arn: string): Promise<Task> {
    const { cluster } = this.#capture;
    const { DescribeTasksCommand } = await import("@aws-sdk/client-ecs");
    const { tasks, failures } = await this.#call("ecs:DescribeTasks", (abort) =>
      this.#ecs.send(new DescribeTasksCommand({ cluster, tasks: [arn] }), abort),
    );
    // It may not know of a task yet that it has just taken.
    if (!tasks?.[0] && failures?.[0]?.reason !== "MISSING")
      throw new RemoteTaskError("the task is not known", failures?.[0]?.reason ?? "ECS does not say why");
    return tasks?.[0] ?? {};
  }

  /** Leaves no task behind. Its own failure is not told: what led here is. */
  async #stop(task: string): Promise<void> {
    const { cluster } = this.#capture;
    try {
      const { StopTaskCommand } = await import("@aws-sdk/client-ecs");
      await this.#ecs.send(new StopTaskCommand({ cluster, task, reason: "given up by tributary" }), {
        abortSignal: AbortSignal.timeout(STOP_DEADLINE_MS),
      });
    } catch {
      this.#options.note(`the task ${task} could not be stopped: stop it in ECS (ecs:StopTask)`);
    }
  }

  /** @throws errors of ours for what AWS refuses; the signal's reason */
  async #call<T>(
    action: string,
    call: (options: { readonly abortSignal: AbortSignal }) => Promise<T>,
    signal = this.#options.signal,
  ): Promise<T> {
    const { environment = process.env } = this.#options;
    try {
      return await call({ abortSignal: signal });
    } catch (error) {
      if (signal.aborted) throw error;
      const region = await this.#ecs.config.region().catch(() => "unknown");
      throw awsAccessError(error, action, await callerOf(environment, region));
    }
  }
}

/** https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html */
function streamOf({ prefix, container }: LogPlace, task: string): string {
  return `${prefix}/${container}/${task}`;
}

/** Returns what RunTask is asked: the service's own placement, and another command. @throws RemoteImageError for a command that is too long */
function runInput(
  { cluster, service: name }: CaptureResources,
  service: Service,
  container: VerbContainer,
  command: readonly string[],
): RunTaskCommandInput {
  const { taskDefinition, platformVersion, capacityProviderStrategy } = service;
  const overrides = {
    containerOverrides: [
      {
        name: container.name,
        command: [OPERATE_FILE, ...command],
        // An older image knows no programs but capture: it refuses this value instead of capturing.
        environment: [{ name: "TRIBUTARY_METRICS_SECONDS", value: "operate" }],
      },
    ],
  };
  const length = JSON.stringify(overrides).length;
  if (length > MAX_OVERRIDES)
    throw new RemoteImageError(
      name,
      `the command line is too long for ECS (${length} characters of ${MAX_OVERRIDES})`,
    );
  return {
    cluster,
    taskDefinition,
    count: 1,
    ...(capacityProviderStrategy && capacityProviderStrategy.length > 0
      ? { capacityProviderStrategy }
      : { launchType: "FARGATE" as const }),
    ...(platformVersion && { platformVersion }),
    networkConfiguration: networkOf(service, container),
    overrides,
    propagateTags: "TASK_DEFINITION",
    startedBy: "tributary",
    // A lost answer starts no second task.
    clientToken: randomUUID(),
  };
}

/** The service's network, with the ways of the container's task. */
function networkOf({ networkConfiguration }: Service, { securityGroups }: VerbContainer) {
  const { awsvpcConfiguration } = networkConfiguration ?? {};
  if (awsvpcConfiguration === undefined || securityGroups.length === 0) return networkConfiguration;
  const all = new Set([...(awsvpcConfiguration.securityGroups ?? []), ...securityGroups]);
  return { awsvpcConfiguration: { ...awsvpcConfiguration, securityGroups: [...all] } };
}
