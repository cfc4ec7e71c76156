/** Log of the writer. A Powertools logger fits. */
export interface StreamLog {
  info(message: string, fields: Record<string, unknown>): void;
  warn(message: string, fields: Record<string, unknown>): void;
}
