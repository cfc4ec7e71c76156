/** Where a program says what happens. A Powertools logger fits. Fields hold class, code and position, never row values. */
export interface Log {
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/** A log of JSON lines, such as CloudWatch Logs takes apart by itself. */
export function jsonLog(write: (line: string) => void): Log {
  const at =
    (level: string) =>
    (message: string, fields: Record<string, unknown> = {}) =>
      write(
        JSON.stringify(
          { level, timestamp: new Date().toISOString(), message, ...fields },
          (_key, value: unknown) => (typeof value === "bigint" ? value.toString() : value),
        ),
      );
  return { info: at("INFO"), warn: at("WARN"), error: at("ERROR") };
}
