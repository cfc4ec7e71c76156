import { appendFileSync, writeFileSync, writeSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import type { Context } from "aws-lambda";

/** Handlers that do what their event says, for the tests of the Lambda host. */
interface Told {
  readonly act?:
    | "exit"
    | "kill"
    | "spin"
    | "memory"
    | "throw"
    | "reject-later"
    | "big"
    | "bigint"
    | "print"
    | "wait"
    | "length"
    | "impostor"
    | "never"
    | "never, with a timer that holds nothing"
    | "later"
    | "buffers"
    | "odd";
  readonly ms?: number;
  readonly announce?: string;
  readonly text?: string;
}

export const handler = async (event: Told, context: Context): Promise<unknown> => {
  if (event.announce) writeFileSync(event.announce, String(process.pid));
  switch (event.act) {
    case "exit":
      return process.exit(3);
    case "kill":
      process.kill(process.pid, "SIGKILL");
      return setTimeout(60_000);
    case "spin":
      for (;;);
    case "memory": {
      const kept: number[][] = [];
      for (;;) kept.push(Array.from({ length: 100_000 }, Math.random));
    }
    case "throw":
      throw new RangeError("told to");
    case "reject-later":
      void Promise.reject(new Error("nobody waits for it"));
      return setTimeout(60_000);
    case "impostor": {
      const head = Buffer.from(JSON.stringify({ type: "answered", requestId: "of another invocation" }));
      const lengths = Buffer.alloc(8);
      lengths.writeUInt32BE(head.length, 0);
      lengths.writeUInt32BE(4, 4);
      writeSync(3, Buffer.concat([lengths, head, Buffer.from("true")]));
      await setTimeout(event.ms);
      return "mine";
    }
    case "never":
      return new Promise(() => {});
    case "never, with a timer that holds nothing":
      globalThis.setTimeout(() => {}, 60_000).unref();
      return new Promise(() => {});
    case "later":
      globalThis.setTimeout(() => appendFileSync(event.text ?? "", "ran"), 1);
      return "before it ran";
    case "buffers": {
      // Outside of the JavaScript heap.
      const kept: Buffer[] = [];
      for (;;) {
        kept.push(Buffer.alloc(1024 * 1024, 1));
        await setTimeout(1);
      }
    }
    case "odd":
      throw Object.defineProperties(new Error(), {
        name: { value: 5 },
        stack: { get: () => Object.create(null) },
      });
    case "length":
      return event.text?.length;
    case "big":
      return "x".repeat(7_000_000);
    case "bigint":
      return 1n;
    case "print":
      console.log("first\nsecond");
      console.error("third");
      return null;
    case "wait":
      await setTimeout(event.ms);
      return "waited";
    default:
      return {
        pid: process.pid,
        event,
        context: { ...context, remaining: context.getRemainingTimeInMillis() },
      };
  }
};

export const environment = async (): Promise<unknown> => process.env;

export const notAFunction = "text";
