import { Option } from "commander";
import { parseTable, type TableName } from "../change/table-pattern.ts";
import { ConfigurationError } from "../change/tributary-error.ts";

/** `--pipeline`: the file of the definition. */
export function pipelineOption(): Option {
  return new Option("--pipeline <file>", "the pipeline definition").default(
    process.env.TRIBUTARY_PIPELINE ?? "cdk/pipeline.ts",
    "$TRIBUTARY_PIPELINE or cdk/pipeline.ts",
  );
}

/** The table that `--table` names. @throws ConfigurationError */
export function tableOption(text: string): TableName {
  try {
    return parseTable(text);
  } catch {
    const remedy = 'write one table: public.orders, or public."Odd.Name"';
    throw new ConfigurationError("The command line", [{ path: "--table", value: text, remedy }]);
  }
}
