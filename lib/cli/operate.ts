import { CommanderError } from "commander";
import { explain } from "../change/error-text.ts";
import { TributaryError } from "../change/tributary-error.ts";
import { writeRemoteLine } from "../definition/remote-program.ts";
import { explainSessionError } from "../source/postgres/link/connection-errors.ts";
import { HEALTH_FILE_VARIABLE, HealthBeat } from "../telemetry/health.ts";
import { remoteProgram } from "./operate-program.ts";

/*
 * The program of the capture image that runs `tributary <verb> --stack … --remote`: the verbs that need the database, with the environment of
 * the capture task, its definition too. Its log has one stream: each line says which of the two it is of, the last one the exit code.
 */

// For an image that knows no programs but capture: to any other value than seconds it answers with an error.
delete process.env.TRIBUTARY_METRICS_SECONDS;
const healthFile = process.env[HEALTH_FILE_VARIABLE];
if (healthFile) new HealthBeat(healthFile, () => {});
await operate();

async function operate(): Promise<void> {
  const write = process.stdout.write.bind(process.stdout);
  const ends = [nameLines("stdout", write), nameLines("stderr", write)];
  let code = 0;
  try {
    await remoteProgram().parseAsync();
    code = Number(process.exitCode ?? 0);
  } catch (thrown) {
    const error = explainSessionError(thrown);
    if (error instanceof CommanderError) code = error.exitCode === 0 ? 0 : 2;
    else {
      process.stderr.write(`${explain(error)}\n`);
      code = error instanceof TributaryError && error.code === "CONFIGURATION" ? 2 : 1;
    }
  }
  for (const end of ends) end();
  write(`${writeRemoteLine("stdout", `exit code ${code}`)}\n`, () => process.exit(code));
}

/** Has what is written to a stream go to standard output, line by line, each with the stream's name. Returns what writes the rest. */
function nameLines(name: "stdout" | "stderr", write: (text: string) => boolean): () => void {
  let rest = "";
  const take = (chunk: string | Uint8Array) => {
    const lines = (rest + (typeof chunk === "string" ? chunk : Buffer.from(chunk).toString())).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) write(`${writeRemoteLine(name, line)}\n`);
    return true;
  };
  process[name].write = (
    chunk: string | Uint8Array,
    encoding?: BufferEncoding | ((error?: Error | null) => void),
    done?: (error?: Error | null) => void,
  ) => {
    const taken = take(chunk);
    (typeof encoding === "function" ? encoding : done)?.();
    return taken;
  };
  return () => {
    if (rest !== "") write(`${writeRemoteLine(name, rest)}\n`);
  };
}
