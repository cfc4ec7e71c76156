import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { describe, expect, expectTypeOf, test } from "vitest";
import { defineError, TributaryError } from "../../../lib/change/tributary-error.ts";

class PlainError extends defineError("PLAIN", "restart") {}

class PortError extends defineError("PORT", "stop").from((port: number, cause?: unknown) => ({
  message: `port ${port} is taken`,
  remedy: `Free ${port}.`,
  cause,
  port,
})) {}

class LowPortError extends PortError {}

describe("a class made by defineError", () => {
  test("is a class of its own: instanceof, a name, a code and a directive", () => {
    const error = new PortError(80);
    expect(error).toBeInstanceOf(PortError);
    expect(error).toBeInstanceOf(TributaryError);
    expect(error).not.toBeInstanceOf(PlainError);
    expect({ ...error }).toEqual({
      name: "PortError",
      remedy: "Free 80.",
      code: "PORT",
      retry: "stop",
      port: 80,
    });
    expect(error.message).toBe("port 80 is taken");
    expect(error.stack).toContain(import.meta.filename);
  });

  test("takes the facts themselves where it is not told how to make them", () => {
    const error = new PlainError({ message: "it broke", remedy: "Mend it.", cause: "age" });
    expect({ ...error }).toEqual({ name: "PlainError", remedy: "Mend it.", code: "PLAIN", retry: "restart" });
    expect([error.message, error.cause]).toEqual(["it broke", "age"]);
  });

  test("has no fields of facts that know more than an error tells", () => {
    const problem = { code: "REPLICA_IDENTITY", message: "it broke", remedy: "Mend it." };
    expect(new PlainError(problem).code).toBe("PLAIN");
  });

  test("has a cause only where there is one", () => {
    expect(new PortError(80, new Error("EADDRINUSE")).cause).toEqual(new Error("EADDRINUSE"));
    expect("cause" in new PortError(80)).toBe(false);
  });

  test("can be extended, and the class below has its own name", () => {
    const error = new LowPortError(80);
    expect(error).toBeInstanceOf(PortError);
    expect([error.name, error.code]).toEqual(["LowPortError", "PORT"]);
    expect(new PortError(80)).not.toBeInstanceOf(LowPortError);
  });

  test("has exact types", () => {
    const error = new PortError(80);
    expectTypeOf(error.code).toEqualTypeOf<"PORT">();
    expectTypeOf(error.retry).toEqualTypeOf<"stop">();
    expectTypeOf(error.port).toEqualTypeOf<number>();
    expectTypeOf<ConstructorParameters<typeof PortError>>().toEqualTypeOf<[port: number, cause?: unknown]>();
    expectTypeOf<ConstructorParameters<typeof PlainError>>().toEqualTypeOf<
      [facts: ConstructorParameters<typeof TributaryError>[0]]
    >();
    // @ts-expect-error a field is readonly
    error.port = 81;
    // @ts-expect-error two classes are not each other
    const other: PlainError = error;
    expect(other.name).toBe("PortError");
  });
});

test("a bundle that keeps names keeps those of errors, which dead letters and holds store", async () => {
  const { outputFiles } = await build({
    stdin: {
      contents: `import * as consume from "./lib/consume/consume-errors.ts";
        import * as deadLetter from "./lib/consume/dead-letter/dead-letter-errors.ts";
        import * as handler from "./lib/consume/api/handler-errors.ts";
        import * as hold from "./lib/consume/hold/hold-errors.ts";
        const { nameOf, ...all } = { ...consume, ...deadLetter, ...handler, ...hold };
        export const names = Object.entries(all).map(([name, of]) => [name, of.name]);
        export const error = new all.OwnershipLostError({ topic: "a", partition: 0 });`,
      resolveDir: fileURLToPath(new URL("../../..", import.meta.url)),
    },
    ...{ bundle: true, minify: true, keepNames: true, write: false },
    ...{ platform: "node", target: "node24", format: "esm" },
  });
  const code = Buffer.from(outputFiles[0]?.contents ?? []).toString("base64");
  const bundle = (await import(`data:text/javascript;base64,${code}`)) as {
    names: [exported: string, own: string][];
    error: Error;
  };
  expect(bundle.names.length).toBeGreaterThan(20);
  expect(bundle.names.filter(([exported, own]) => exported !== own)).toEqual([]);
  expect(bundle.error.name).toBe("OwnershipLostError");
});
