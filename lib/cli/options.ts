import { Option } from "commander";

/** `--pipeline`: the file of the definition. */
export function pipelineOption(): Option {
  return new Option("--pipeline <file>", "the pipeline definition").default(
    process.env.TRIBUTARY_PIPELINE ?? "cdk/pipeline.ts",
    "$TRIBUTARY_PIPELINE or cdk/pipeline.ts",
  );
}
