import { createRequire } from "node:module";
import { extname } from "node:path";
import { PackagesMissingError } from "../lib/change/packages-missing.ts";

/*
 * tributary-cdc/cdk, as others import it. It loads the constructs by `require`, so that it can say what to install: a static
 * import of what is missing fails before any line of ours has run, and one that is awaited could not be required.
 */

/** Packages that an app with constructs has itself. */
const PEERS = ["aws-cdk-lib", "constructs"];

export const { CdcPipeline, PipelineEndpoints } = constructs();
/** Endpoints of AWS's services that the pipelines of a VPC share. */
export type PipelineEndpoints = import("./constructs/cdc-pipeline.ts").PipelineEndpoints;

function constructs(): typeof import("./constructs/cdc-pipeline.ts") {
  try {
    return createRequire(import.meta.url)(`./constructs/cdc-pipeline${extname(import.meta.filename)}`);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "ERR_MODULE_NOT_FOUND" || !PEERS.some((peer) => message.includes(`'${peer}'`))) throw error;
    throw new PackagesMissingError("tributary-cdc/cdk", PEERS, error);
  }
}
