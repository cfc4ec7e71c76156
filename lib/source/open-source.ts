import type { ChangeStream } from "../change/change-stream.ts";
import type { TableName } from "../change/table-pattern.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { SourceDefinition } from "../definition/pipeline.ts";
import { checkOutbox } from "./outbox/preflight.ts";
import { checkPolling, openPollingSource } from "./polling/polling-source.ts";
import { openPostgresSource, preflight } from "./postgres/postgres-source.ts";
import type { SourceCheck, SourceOptions } from "./source-kind.ts";
import { checkTriggers, openTriggerSource } from "./triggers/trigger-source.ts";

/**
 * Looks whether the database is fit for the definition, whatever its kind of source; touches nothing.
 * @throws PreflightError with all problems, and the errors of `connect`.
 */
export async function checkSource(options: SourceCheck): Promise<{ readonly tables: readonly TableName[] }> {
  const { source } = options.pipeline;
  switch (source.kind) {
    case "postgres":
      return await preflight({ ...options, pipeline: { ...options.pipeline, source } });
    case "triggers":
      return await checkTriggers({ ...options, pipeline: { ...options.pipeline, source } });
    case "polling":
      return await checkPolling({ ...options, pipeline: { ...options.pipeline, source } });
    case "outbox":
      await checkOutbox({ ...options, pipeline: { ...options.pipeline, source } });
      return { tables: [] };
    default:
      throw notYet(source);
  }
}

/**
 * Opens the source of a pipeline, whatever its kind.
 * @throws TributaryError of every kind; each says what to do.
 */
export async function openSource(options: SourceOptions): Promise<ChangeStream> {
  const { source } = options.pipeline;
  switch (source.kind) {
    case "postgres":
      return await openPostgresSource({ ...options, pipeline: { ...options.pipeline, source } });
    case "triggers":
      return await openTriggerSource({ ...options, pipeline: { ...options.pipeline, source } });
    case "polling":
      return await openPollingSource({ ...options, pipeline: { ...options.pipeline, source } });
    default:
      throw notYet(source);
  }
}

function notYet({ kind }: SourceDefinition): ConfigurationError {
  return new ConfigurationError("The pipeline definition", [
    { path: "source.kind", value: kind, remedy: "this kind cannot be opened yet: write postgres({…})" },
  ]);
}
