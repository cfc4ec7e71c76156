import { Logger } from "@aws-lambda-powertools/logger";
import type { Log } from "../log.ts";

/** The message of the capture task's first line: starts are counted by it. */
export const CAPTURE_STARTS_LINE = "the capture task starts";

/** Returns the capture task's first line, for every level of the log: one that leaves information out must not hide a task that starts again and again. */
export function captureStartsLine(service: string): string {
  const timestamp = new Date().toISOString();
  return JSON.stringify({ level: "INFO", message: CAPTURE_STARTS_LINE, service, timestamp });
}

/**
 * A Powertools logger, all of whose levels go where `write` says: `POWERTOOLS_LOG_LEVEL` chooses the level, and lines look
 * like those of a Lambda function that uses it. https://docs.aws.amazon.com/powertools/typescript/latest/features/logger/
 */
export function powertoolsLog(service: string, write: (line: string) => void): Log {
  const logger = new LineLogger(service, write);
  return {
    info: (message, fields = {}) => logger.info(message, fields),
    warn: (message, fields = {}) => logger.warn(message, fields),
    error: (message, fields = {}) => logger.error(message, fields),
  };
}

type PrintedItem = Parameters<Logger["printLog"]>[1];

/** Powertools writes warnings and errors to standard error, which would part them from the rest. */
class LineLogger extends Logger {
  readonly #write: (line: string) => void;

  constructor(serviceName: string, write: (line: string) => void) {
    super({ serviceName });
    this.#write = write;
  }

  protected override printLog(_level: number, item: PrintedItem): void {
    item.prepareForPrint();
    this.#write(JSON.stringify(item.getAttributes(), this.getJsonReplacer()));
  }
}
