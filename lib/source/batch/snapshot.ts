/** `xmin:xmax:xip_list`. https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT */
export interface FullSnapshot {
  /** Every transaction below has ended. */
  readonly xmin: bigint;
  /** None from here on had ended. */
  readonly xmax: bigint;
  /** Those between that had not. */
  readonly running: readonly bigint[];
}

/** @throws RangeError for a text that is none. */
export function parseSnapshot(text: string): FullSnapshot {
  const match = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/.exec(text);
  if (!match) throw new RangeError(`not a snapshot: ${text}`);
  const [, xmin, xmax, running] = match as unknown as [string, string, string, string];
  return { xmin: BigInt(xmin), xmax: BigInt(xmax), running: running ? running.split(",").map(BigInt) : [] };
}
