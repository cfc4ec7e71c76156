/*
 * What a remote verb and its task say to each other: the task's log has both streams of the verb in one, each line with the name of its own.
 */

/** The program of the capture image that runs verbs. */
export const OPERATE_FILE = "/app/operate.mjs";
/** Says in a task definition that its image has that program. */
export const OPERATE_VARIABLE = "TRIBUTARY_OPERATE";
/** Names the code of a consumer in the environment of its verify task, a file that exports `sink`: `s3://bucket/key`, or a file URL. */
export const SINK_CODE_VARIABLE = "TRIBUTARY_SINK_CODE";
/** The variables of that consumer's function, as JSON: apart from the task's own, since both may name a database. */
export const SINK_ENVIRONMENT_VARIABLE = "TRIBUTARY_SINK_ENVIRONMENT";
/** Docker label of a task definition: security groups that its task needs beside the capture service's, with commas. */
export const SECURITY_GROUPS_LABEL = "tributary.security-groups";
/** The last line of standard output. */
export const EXIT_LINE = /^exit code (\d{1,3})$/;

/** A line that a verb printed in its task. */
export interface RemoteLine {
  readonly stream: "stdout" | "stderr";
  readonly text: string;
  /** False for what the runtime wrote itself, or the rest of a line that the log has split. */
  readonly isOurs: boolean;
  /** False where the next line goes on with this one. */
  readonly isEnd: boolean;
}

/** Characters of a piece: the log of a container splits lines at 16 KB, and a character has 4 bytes at most. */
const PIECE = /[\s\S]{1,4000}/gu;

/** Returns the line as it stands in the task's log: one of several lines there, where it is long. */
export function writeRemoteLine(stream: RemoteLine["stream"], text: string): string {
  const pieces = text.match(PIECE) ?? [""];
  return pieces.map((piece, i) => `${stream}${i < pieces.length - 1 ? "+" : ""}: ${piece}`).join("\n");
}

/** Reads a line of the task's log. `last`: the stream of the line before, which a line without a name continues. */
export function readRemoteLine(line: string, last: RemoteLine["stream"]): RemoteLine {
  const [, stream, more, text] = /^(stdout|stderr)(\+?): (.*)$/s.exec(line) ?? [];
  if (text === undefined) return { stream: last, text: line, isOurs: false, isEnd: true };
  return { stream: stream as RemoteLine["stream"], text, isOurs: true, isEnd: more === "" };
}
