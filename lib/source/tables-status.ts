/** Status of a source that reads tables, for metrics. */
export interface TablesStatus {
  readonly kind: "tables";
  readonly connected: boolean;
  /** Number of times the connection was opened again. */
  readonly reconnects: number;
  /** The oldest transaction that runs: what it changed is read when it ends, and audit rows are kept until then. */
  readonly oldestTransactionSeconds: number | undefined;
}
