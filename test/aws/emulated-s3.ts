import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  PutObjectCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import S3rver from "s3rver";
import { afterAll, beforeAll } from "vitest";
import { s3Client } from "../../lib/aws/clients.ts";
import type { AwsRefusal } from "../../lib/aws/refusal.ts";
import { collectRefusals, type Refusals } from "../refusals.ts";
import { limitedS3 } from "./limited-s3.ts";

/** S3 as the tests of one file see it: any implementation behind `AWS_ENDPOINT_URL`, or an emulator of ours. */
export interface EmulatedS3 {
  /** For `s3Client(environment)`; the emulator knows one account. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly endpoint: string;
  /** A bucket that is there. */
  readonly bucket: string;
  /** Returns the calls that AWS would have refused, and pardons them: any other fails the test that sent it. */
  takeRefusals(): AwsRefusal[];
  overwrite(key: string, bytes: Uint8Array): Promise<void>;
  remove(key: string): Promise<void>;
}

/** Emulated S3 for a test file: call it once at the top, use what it gives inside tests and hooks. */
export function emulatedS3(): () => EmulatedS3 {
  let s3: EmulatedS3 | undefined;
  let client: S3Client | undefined;
  const cleanups: (() => Promise<unknown>)[] = [];
  const refusals = collectRefusals();
  beforeAll(async () => {
    const foreign = process.env.AWS_ENDPOINT_URL_S3 ?? process.env.AWS_ENDPOINT_URL;
    const endpoint = foreign ?? (await startEmulator(cleanups, refusals));
    const environment = {
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "S3RVER",
      AWS_SECRET_ACCESS_KEY: "S3RVER",
      ...(foreign ? process.env : {}),
      AWS_ENDPOINT_URL_S3: endpoint,
    };
    const bucket = `tributary-test-${randomBytes(6).toString("hex")}`;
    const made = await s3Client(environment);
    client = made;
    await made.send(new CreateBucketCommand({ Bucket: bucket }));
    s3 = {
      environment,
      endpoint,
      bucket,
      takeRefusals: refusals.take,
      async overwrite(Key, Body) {
        await made.send(new PutObjectCommand({ Bucket: bucket, Key, Body }));
      },
      async remove(Key) {
        await made.send(new DeleteObjectCommand({ Bucket: bucket, Key }));
      },
    };
  });
  afterAll(async () => {
    client?.destroy();
    for (const cleanup of cleanups) await cleanup();
  });
  return () => {
    if (s3 === undefined) throw new Error("emulated S3 runs only inside tests and hooks");
    return s3;
  };
}

async function startEmulator(cleanups: (() => Promise<unknown>)[], refusals: Refusals): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "tributary-s3-"));
  const server = new S3rver({ address: "127.0.0.1", port: 0, silent: true, directory });
  const { port } = await server.run();
  limitedS3(server.httpServer, (refusal) => refusals.note(refusal));
  cleanups.push(
    () => server.close(),
    () => rm(directory, { recursive: true, force: true }),
  );
  return `http://127.0.0.1:${port}`;
}
