import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { HandlerInspection, LoadedHandler } from "../admin/doctor/examination.ts";
import type { ConsumerDefinition, Pipeline } from "../definition/definition.ts";
import { checkName, consumerEnvironment } from "./consumer-host.ts";
import { Bundler } from "./dev/bundler.ts";
import { checkHandlerFiles } from "./handler-files.ts";
import { startLambdaFunction } from "./lambda/host.ts";
import { compareRegistrations } from "./registration-notes.ts";

/** Handlers that are loaded at once: each is a process, and definitions have many. */
const AT_ONCE = 4;
/** After Lambda's ten seconds, which a handler has in AWS too. */
const SECOND_TRY_MS = 10_000;

/**
 * Looks at handlers as `tributary dev` and the CDK app run them: bundled in a temporary directory, loaded in a process of its own with the
 * environment given, and nothing is invoked. What a file does as it is loaded it does here too.
 */
export function inspectHandlers(
  projectDirectory: string,
  environment: Readonly<Record<string, string | undefined>>,
): HandlerInspection {
  const waiting: (() => void)[] = [];
  let free = AT_ONCE;
  const turn = async () => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    return {
      [Symbol.dispose]() {
        const next = waiting.shift();
        if (next) next();
        else free++;
      },
    };
  };
  return {
    async load(consumer, pipeline, signal) {
      using _ = await turn();
      signal.throwIfAborted();
      return await load(consumer, pipeline, projectDirectory, environment);
    },
    compare(pipeline, tables, handlers) {
      const consumers = [...handlers].map(([name, { registered }]) => ({
        name,
        registered: registered && {
          consumer: registered.consumer,
          ...(registered.patterns && { patterns: [...registered.patterns] }),
        },
      }));
      const { unmatched, untaken } = compareRegistrations(pipeline, tables, consumers);
      return { unmatched, notes: untaken };
    },
  };
}

async function load(
  consumer: ConsumerDefinition,
  pipeline: Pipeline,
  projectDirectory: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<LoadedHandler> {
  await checkHandlerFiles({ consumers: [consumer] }, projectDirectory);
  const directory = await mkdtemp(join(tmpdir(), "tributary-doctor-"));
  try {
    const { bundler, bundles } = await Bundler.start([consumer], {
      project: projectDirectory,
      output: join(directory, "build"),
    });
    await bundler.stop();
    const handler = await startLambdaFunction({
      entry: bundles.get(consumer.name)?.file ?? "",
      name: `${pipeline.name}-${consumer.name}`,
      timeoutMs: consumer.timeoutSeconds * 1000,
      memoryMB: consumer.memoryMB,
      startMs: SECOND_TRY_MS,
      concurrency: 1,
      sourceMaps: true,
      surroundings: { AWS_REGION: "us-east-1", ...defined(environment) },
      environment: consumerEnvironment(consumer, pipeline, {
        stateTable: environment.TRIBUTARY_STATE_TABLE || "none",
        deadLetterQueues: new Map(),
      }),
    });
    await handler.stop();
    checkName(consumer, handler.registered);
    return { registered: handler.registered };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function defined(environment: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
}
