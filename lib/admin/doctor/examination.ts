import type { Environment } from "../../aws/clients.ts";
import type { TableName } from "../../change/table-pattern.ts";
import { TributaryError } from "../../change/tributary-error.ts";
import type { ConsumerDefinition, Pipeline } from "../../definition/definition.ts";
import { sourceKind } from "../../source/index.ts";
import type { PostgresConnectionOptions } from "../../source/postgres/link/connection-options.ts";
import { PreflightError, type PreflightProblem } from "../../source/postgres/postgres-errors.ts";
import type { PipelineResources } from "../resources.ts";
import { readCaller } from "./aws-caller.ts";
import { NotChecked } from "./check.ts";
import { describeStream, describeTable } from "./described.ts";
import { readSession } from "./session-facts.ts";

/** All that is handed to doctor. What it is not given it lists as unchecked. */
export interface DoctorSubject {
  /** Version of the Node that runs: `24.21.0`. */
  readonly node: string;
  /** For AWS clients; `process.env` has the SDK look for credentials as ever. */
  readonly environment: Environment;
  readonly definition: FoundDefinition;
  /** The source database, as capture reaches it; undefined where nothing names one. */
  readonly database: (() => Promise<PostgresConnectionOptions>) | undefined;
  /** Undefined where the pipeline runs nowhere that is named. */
  readonly resources: PipelineResources | undefined;
  /** Undefined where the handlers' files are not here. */
  readonly handlers: HandlerInspection | undefined;
}

/** The definition, or the error of finding, loading or validating it. */
export type FoundDefinition =
  | { readonly file: string; readonly pipeline: Pipeline }
  | { readonly file: string | undefined; readonly error: unknown };

/** The name and the patterns that a handler registered, as its file says when it is loaded. */
export interface LoadedHandler {
  /** Undefined of a handler that another library made, or that is wrapped. */
  readonly registered:
    | { readonly consumer: string; readonly patterns?: readonly string[] | undefined }
    | undefined;
}

/** Looks at handlers as the functions of a pipeline would run them. */
export interface HandlerInspection {
  /** Bundles and loads a consumer's handler, in a process of its own that ends then. @throws TributaryError */
  load(consumer: ConsumerDefinition, pipeline: Pipeline, signal: AbortSignal): Promise<LoadedHandler>;
  /** Holds patterns against the tables that are captured: a sentence for each that fits none, and for tables that nobody takes. */
  compare(
    pipeline: Pipeline,
    tables: readonly TableName[],
    handlers: ReadonlyMap<string, LoadedHandler>,
  ): { readonly unmatched: readonly UnmatchedPattern[]; readonly notes: readonly string[] };
}

/** A pattern that no captured table matches, or not on the consumer's topics. */
export interface UnmatchedPattern {
  readonly consumer: string;
  readonly text: string;
}

/** Tables that a definition captures, and what preflight would warn of. */
export interface CapturedTables {
  readonly tables: readonly TableName[];
  readonly warnings: readonly PreflightProblem[];
}

/** Time of a look that several checks share, in milliseconds: longer than connecting may take. */
const SHARED_MS = 25_000;
/** Loading a handler: its bundle, Lambda's ten seconds, and some more on a busy machine. */
const LOAD_MS = 55_000;

/** One run of doctor: looks that several checks need are taken once. */
export class Examination {
  readonly subject: DoctorSubject;
  readonly #signal: AbortSignal;
  readonly #looks = new Map<string, Promise<unknown>>();

  constructor(subject: DoctorSubject, signal: AbortSignal) {
    this.subject = subject;
    this.#signal = signal;
  }

  /** The definition, where it is valid. */
  get pipeline(): Pipeline | undefined {
    const { definition } = this.subject;
    return "pipeline" in definition ? definition.pipeline : undefined;
  }

  /** @throws NotChecked where there is no valid definition. */
  requirePipeline(): Pipeline {
    if (this.pipeline) return this.pipeline;
    throw new NotChecked("needs a valid definition");
  }

  /** A session with the database, opened and ended: server, role, clock. @throws NotChecked, and the errors of `connect` */
  session() {
    return this.#once("session", SHARED_MS, async (signal) => readSession(await this.connection(), signal));
  }

  /** @throws NotChecked where nothing names a database; ConfigurationError, SecretUnavailableError */
  async connection(): Promise<PostgresConnectionOptions> {
    const { database } = this.subject;
    if (!database)
      throw new NotChecked(
        "nothing names a database: set DATABASE_URL, or give --database-url (tributary dev without one starts an embedded PostgreSQL)",
      );
    return await this.#once("connection", SHARED_MS, database);
  }

  /** Preflight over the tables of all slots. @throws NotChecked, PreflightError with all problems */
  captured(): Promise<CapturedTables> {
    return this.#once("captured", SHARED_MS, async (signal) => {
      const pipeline = this.requirePipeline();
      const connection = await this.connection();
      await needed(this.session(), "needs a session with the database: see database");
      return await checkSlots(pipeline, connection, signal);
    });
  }

  /** Loads a handler. @throws NotChecked, TributaryError */
  handler(consumer: ConsumerDefinition): Promise<LoadedHandler> {
    return this.#once(`handler ${consumer.name}`, LOAD_MS, async (signal) => {
      const { handlers } = this.subject;
      if (!handlers) throw new NotChecked("the handlers' files are not in this place");
      return await handlers.load(consumer, this.requirePipeline(), signal);
    });
  }

  /** Who we are for AWS. @throws NotChecked, AwsCredentialsError, ConfigurationError */
  caller() {
    const { environment, resources } = this.subject;
    return this.#once("caller", SHARED_MS, (signal) => readCaller(environment, resources, signal));
  }

  /** Lets a check of AWS go on, unless AWS refuses us altogether. @throws NotChecked */
  async signedIn(): Promise<void> {
    await this.caller().catch((error: unknown) => {
      if (error instanceof TributaryError)
        throw new NotChecked("needs credentials that AWS takes: see AWS identity");
    });
  }

  /** @throws NotChecked where the pipeline runs nowhere that is named. */
  requireResources(): PipelineResources {
    const { resources } = this.subject;
    if (resources) return resources;
    throw new NotChecked(
      "nothing names where the pipeline runs: give --stack, or TRIBUTARY_STATE_TABLE and TRIBUTARY_STREAM",
    );
  }

  /** The state table as DynamoDB describes it. @throws NotChecked, StateTableError */
  table() {
    return this.#once("table", SHARED_MS, async (signal) => {
      const { stateTable } = this.requireResources();
      await this.signedIn();
      return await describeTable(this.subject.environment, stateTable, signal);
    });
  }

  /** The stream as Kinesis describes it. @throws NotChecked, StreamSettingsError */
  stream() {
    return this.#once("stream", SHARED_MS, async (signal) => {
      const { stream } = this.requireResources();
      if (stream === undefined)
        throw new NotChecked("this place does not name the stream: set TRIBUTARY_STREAM");
      await this.signedIn();
      return await describeStream(this.subject.environment, stream, signal);
    });
  }

  #once<T>(name: string, deadlineMs: number, look: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const known = this.#looks.get(name);
    if (known) return known as Promise<T>;
    const taken = look(AbortSignal.any([this.#signal, AbortSignal.timeout(deadlineMs)]));
    // Nobody may wait for it any more when it fails.
    taken.catch(() => undefined);
    this.#looks.set(name, taken);
    return taken;
  }
}

/** Waits for what a check needs. @throws NotChecked with `why` where that failed for a reason of its own */
export async function needed<T>(look: Promise<T>, why: string): Promise<T> {
  return await look.catch((error: unknown) => {
    throw error instanceof NotChecked ? error : new NotChecked(why);
  });
}

/** Each slot looks at its own tables: problems that several tell are told once. */
async function checkSlots(
  pipeline: Pipeline,
  connection: PostgresConnectionOptions,
  signal: AbortSignal,
): Promise<CapturedTables> {
  const kind = sourceKind(pipeline.source);
  const problems = new Map<string, PreflightProblem>();
  const tables: TableName[] = [];
  const warnings = new Map<string, PreflightProblem>();
  for (const slot of kind.tasks(pipeline.source)) {
    try {
      const found = await kind.check({ connection, pipeline, slot, signal });
      tables.push(...found.tables);
      for (const warning of found.warnings ?? []) warnings.set(warning.message, warning);
    } catch (error) {
      if (!(error instanceof PreflightError)) throw error;
      for (const problem of error.problems) problems.set(problem.message, problem);
    }
  }
  if (problems.size > 0) throw new PreflightError([...problems.values()]);
  return { tables, warnings: [...warnings.values()] };
}
