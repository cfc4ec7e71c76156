import { describe, expect, it } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { HELP_SHOWN, parseArguments, type StartArguments } from "../../../lib/local/arguments.ts";

function parse(...argv: string[]): StartArguments {
  const parsed = parseArguments(argv, () => {});
  if (parsed === HELP_SHOWN) throw new Error("help was shown");
  return parsed;
}

function refusal(...argv: string[]): string {
  try {
    parse(...argv);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError);
    return (error as Error).message;
  }
  throw new Error(`not refused: ${argv.join(" ")}`);
}

describe("the command line of npm start", () => {
  it("runs the shop at a gentle rate without arguments", () => {
    expect(parse()).toMatchObject({
      pipeline: "cdk/pipeline.ts",
      databaseUrl: undefined,
      changes: undefined,
    });
    expect(parse().rate).toBeGreaterThan(0);
  });

  it("watches the shop by another source, which brings its definition", () => {
    expect(parse().source).toBe("log");
    expect(parse("--source", "outbox").pipeline).toMatch(/shop\/sources\/outbox\.ts$/);
    expect(refusal("--source", "tarot")).toContain("outbox");
    expect(refusal("--source", "outbox", "--pipeline", "mine.ts")).toContain("--source: leave it out");
    expect(refusal("--source", "outbox", "--database-url", "postgres://localhost/mine")).toContain(
      "--source",
    );
  });

  it("runs as fast as it can up to a number of changes, unless a rate is given", () => {
    expect(parse("--changes", "20000", "--exit", "--json")).toMatchObject({
      changes: 20_000,
      rate: undefined,
      exit: true,
      json: true,
    });
    expect(parse("--changes", "20000", "--rate", "50").rate).toBe(50);
  });

  it("takes tables of a database, separately or by comma", () => {
    const own = parse("--database-url", "postgres://u@h/d", "--tables", "public.*", "a.b,c.d");
    expect(own).toMatchObject({ pipeline: undefined, tables: ["public.*", "a.b", "c.d"] });
    expect(parse("--database-url", "postgres://u@h/d").tables).toEqual(["public.*"]);
    expect(parse("--database-url", "postgres://u@h/d", "--pipeline", "mine.ts")).toMatchObject({
      pipeline: "mine.ts",
      tables: undefined,
    });
  });

  it.each([
    [["--changes", "abc"], /--changes.*abc.*whole number/s],
    [["--changes", "0"], /--changes.*whole number/s],
    [["--changes", "1e3"], /--changes.*whole number/s],
    [["--rate", "-1"], /--rate.*whole number/s],
    [["--port", "65536"], /--port.*1 to 65535/s],
    [["--tabels", "x.y"], /unknown option '--tabels'/],
    [["start"], /too many arguments/],
    [["--exit"], /--exit: say --changes/],
    [["--json", "--changes", "5"], /--json: say --exit/],
    [["--tables", "public.*"], /--tables: say --database-url/],
    [["--database-url", "postgres://h/d", "--tables", "orders"], /not a table pattern: "orders"/],
    [["--database-url", "mysql://h/d"], /--database-url: write it as postgres:/],
    [["--database-url", "postgres://h/d", "--rate", "5"], /--rate: leave it out/],
    [["--database-url", "postgres://h/d", "--pipeline", "p.ts", "--tables", "a.b"], /--tables: leave it out/],
    [["--drop-slot-on-exit"], /--drop-slot-on-exit: leave it out/],
  ])("refuses %j and says what to write", (argv, message) => {
    expect(refusal(...argv)).toMatch(message);
  });

  it("never repeats a password", () => {
    expect(refusal("--database-url", "mysql://me:secret@h/d")).not.toContain("secret");
    expect(refusal("--database-url", "postgres://me:secret@h/d", "--unknown")).not.toContain("secret");
  });

  it("explains its counts in --help", () => {
    let help = "";
    expect(parseArguments(["--help"], (text) => (help += text))).toBe(HELP_SHOWN);
    for (const word of ["changes", "published", "applied", "duplicates", "deadLettered", "mismatches"]) {
      expect(help).toMatch(new RegExp(`^  ${word} `, "m"));
    }
  });
});
