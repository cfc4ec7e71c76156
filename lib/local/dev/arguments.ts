/** The arguments of `tributary dev`. */
export interface DevArguments {
  /** File of the definition; left out, it is looked for. */
  readonly pipeline: string | undefined;
  /** The user's own database; left out: an embedded server. */
  readonly databaseUrl: string | undefined;
  /** SQL file for a fresh embedded server. */
  readonly schema: string | undefined;
  /** Read existing rows too. */
  readonly snapshot: boolean;
  /** Remove what an earlier run has left, and begin anew. */
  readonly fresh: boolean;
  /** Keep the slot on a server that is not this machine's. */
  readonly keepSlot: boolean;
  /** Port of the embedded server. */
  readonly port: number | undefined;
}
