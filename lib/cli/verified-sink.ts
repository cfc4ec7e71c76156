import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { awsAccessError } from "../admin/aws-access.ts";
import { callerOf } from "../admin/stack-resources.ts";
import { s3Client } from "../aws/clients.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { VerifiableSink } from "../consume/api/verifiable-sink.ts";
import { importFile } from "../definition/import-file.ts";
import { SINK_CODE_VARIABLE, SINK_ENVIRONMENT_VARIABLE } from "../definition/remote-program.ts";

const S3_OBJECT = /^s3:\/\/([^/]+)\/(.+)$/;
/** Larger than any function's code that is one file. */
const MAX_CODE_BYTES = 64 * 1024 * 1024;
const CODE_DEADLINE_MS = 60_000;

const sinkEnvironment = z.record(z.string(), z.string());

/**
 * Loads the `sink` that a consumer's code exports: of its entry file, or, in a consumer's verify task, of the code that the environment
 * names. There the variables of the consumer's function are added to this process's: read what the source needs before.
 * @throws ConfigurationError where the code exports none; AwsRightMissingError, AwsUnavailableError
 */
export async function loadSink(
  entry: string,
  environment: Record<string, string | undefined> = process.env,
): Promise<VerifiableSink> {
  const code = environment[SINK_CODE_VARIABLE];
  if (!code) return sinkOf(entry, await importFile(entry));
  const own = z.safeParse(sinkEnvironment, parsed(environment[SINK_ENVIRONMENT_VARIABLE]));
  if (!own.success)
    throw wrong(
      SINK_ENVIRONMENT_VARIABLE,
      undefined,
      "write the variables of the consumer's function as JSON",
    );
  // Read with the task's own variables: the consumer's may name another endpoint.
  const { file, remove } = await codeFile(code, { ...environment });
  try {
    Object.assign(environment, own.data);
    return sinkOf(code, await importFile(file));
  } finally {
    await remove();
  }
}

function sinkOf(entry: string, { sink }: { readonly sink?: Partial<VerifiableSink> }): VerifiableSink {
  if (typeof sink?.table !== "function")
    throw wrong("entry", entry, "export const sink: VerifiableSink beside handler");
  return sink as VerifiableSink;
}

/** Returns the file of the code: its place, or a copy of the object, which `remove` removes. */
async function codeFile(code: string, environment: Readonly<Record<string, string | undefined>>) {
  const [, bucket, key] = S3_OBJECT.exec(code) ?? [];
  if (bucket === undefined || key === undefined) {
    if (!code.startsWith("file:///"))
      throw wrong(SINK_CODE_VARIABLE, code, "write s3://bucket/key, or file:///absolute/path.mjs");
    return { file: fileURLToPath(code), remove: async () => {} };
  }
  const bytes = await readObject(bucket, key, environment);
  const folder = await mkdtemp(join(tmpdir(), "tributary-sink-"));
  const file = join(folder, "index.mjs");
  await writeFile(file, bytes);
  return { file, remove: () => rm(folder, { recursive: true, force: true }) };
}

async function readObject(
  Bucket: string,
  Key: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<Uint8Array> {
  const { GetObjectCommand } = await import("@aws-sdk/client-s3");
  const client = await s3Client(environment);
  const abortSignal = AbortSignal.timeout(CODE_DEADLINE_MS);
  try {
    const { Body, ContentLength = 0 } = await client.send(new GetObjectCommand({ Bucket, Key }), {
      abortSignal,
    });
    if (Body === undefined || ContentLength > MAX_CODE_BYTES)
      throw wrong(SINK_CODE_VARIABLE, `s3://${Bucket}/${Key}`, `it has ${ContentLength} bytes: deploy again`);
    return await Body.transformToByteArray();
  } catch (error) {
    if (error instanceof ConfigurationError) throw error;
    const region = await client.config.region().catch(() => "unknown");
    throw awsAccessError(error, "s3:GetObject", await callerOf(environment, region));
  } finally {
    client.destroy();
  }
}

/** Nothing is read from a text that is no JSON. */
function parsed(text = "{}"): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function wrong(path: string, value: unknown, remedy: string): ConfigurationError {
  return new ConfigurationError("The comparison", [{ path, value, remedy }]);
}
