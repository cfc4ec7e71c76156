/**
 * A log. A Powertools logger fits. Fields hold class, code and position, never row values. `waitsFor` names what a task stands still
 * for: its report on itself tells that too (`lib/capture/capture-reporter.ts`).
 */
export interface Log {
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}
