import { stat } from "node:fs/promises";
import { s3Client } from "../../aws/clients.ts";
import { awsFailure } from "../../aws/failure.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import { claimLocation } from "../../claim-check/open-claim-store.ts";
import { askAws } from "./ask-aws.ts";
import { type Check, NotChecked, ok } from "./check.ts";
import type { Examination } from "./examination.ts";

/** The store of what is too large for the stream. */
export function claimStoreChecks(examination: Examination): readonly Check[] {
  return [
    {
      name: "claim store",
      async look(signal) {
        const { claimStore: url, place } = examination.requireResources();
        if (url === undefined) throw new NotChecked(`${place} does not name it`);
        const location = claimLocation(url);
        if (location.kind === "directory") {
          const found = await stat(location.path).catch(() => undefined);
          if (found && !found.isDirectory())
            throw new ConfigurationError("The environment", [
              { path: "TRIBUTARY_CLAIM_BUCKET", value: url, remedy: "name a directory, not a file" },
            ]);
          return ok(found ? url : `${url}, which is made when it is needed`);
        }
        await examination.signedIn();
        const { HeadBucketCommand } = await import("@aws-sdk/client-s3");
        const client = await s3Client(examination.subject.environment);
        const missing = (cause: unknown) =>
          new ConfigurationError("The place of the pipeline", [
            {
              path: "TRIBUTARY_CLAIM_BUCKET",
              value: url,
              remedy: `name a bucket that exists (S3: ${awsFailure(cause)}), or deploy the stack again; a pointer in the stream whose object is gone holds its partition`,
            },
          ]);
        await askAws(
          "s3:ListBucket",
          () => client.send(new HeadBucketCommand({ Bucket: location.bucket }), { abortSignal: signal }),
          { names: ["NotFound", "NoSuchBucket"], error: missing },
        ).finally(() => client.destroy());
        return ok(location.bucket);
      },
    },
  ];
}
