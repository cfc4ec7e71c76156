import { readFile, writeFile } from "node:fs/promises";
import { Command } from "commander";
import { type RowTypes, rowTypes } from "../admin/row-types/row-types.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { withDatabase } from "./database.ts";
import { databaseUrlOption, patternsOption, pipelineOption, readPipeline } from "./options.ts";
import { note } from "./say.ts";

interface TypesArguments {
  readonly pipeline?: string;
  readonly databaseUrl?: string;
  readonly tables?: readonly string[];
  readonly output?: string;
  readonly check?: boolean;
}

/** `tributary generate`: prints what is made of the database and of the definition. */
export function generateCommand(): Command {
  return new Command("generate")
    .description("print what is made of the captured tables")
    .addCommand(
      new Command("types")
        .description("TypeScript types of the rows of captured tables, as handlers see them")
        .addOption(pipelineOption())
        .addOption(databaseUrlOption())
        .addOption(
          patternsOption("--tables <pattern...>", "of the captured tables these alone (default: all)"),
        )
        .option("--output <file>", "write it there (default: standard output)")
        .option("--check", "write nothing: exit 1 where the file of --output differs")
        .action(types),
    );
}

async function types(given: TypesArguments): Promise<void> {
  const { output, check = false, tables } = given;
  if (check && output === undefined) {
    const remedy = "name the file that is to be checked";
    throw new ConfigurationError("The command line", [{ path: "--output", value: undefined, remedy }]);
  }
  const pipeline = await readPipeline(given.pipeline);
  const made = await withDatabase(given.databaseUrl, (client) => rowTypes({ pipeline, client, tables }));
  if (output === undefined) process.stdout.write(made.source);
  else if (check) await compare(output, made);
  else await write(output, made);
}

async function compare(output: string, { source }: RowTypes): Promise<void> {
  const found = await contentOf(output);
  if (found === source) {
    note(`${output} is as the captured tables are`);
    return;
  }
  note(
    `${output} ${found === undefined ? "does not exist" : "is not as the captured tables are"}: write it anew by the same command without --check`,
  );
  process.exitCode = 1;
}

async function write(output: string, { source, tables }: RowTypes): Promise<void> {
  if ((await contentOf(output)) === source) {
    note(`${output} is as the captured tables are: nothing was written`);
    return;
  }
  try {
    await writeFile(output, source);
  } catch (error) {
    const remedy = `it cannot be written: ${(error as Error).message}`;
    throw new ConfigurationError("The command line", [{ path: "--output", value: output, remedy }]);
  }
  note(`wrote ${output}: types of ${tables.length === 1 ? "one table" : `${tables.length} tables`}`);
}

/** Undefined where there is no such file. @throws ConfigurationError for what is there and cannot be read */
async function contentOf(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return undefined;
    const remedy = `it cannot be read: ${(error as Error).message}`;
    throw new ConfigurationError("The command line", [{ path: "--output", value: file, remedy }]);
  }
}
