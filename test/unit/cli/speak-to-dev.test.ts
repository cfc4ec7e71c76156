import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { afterEach, beforeEach, expect, it } from "vitest";
import { speakToDev } from "../../../lib/cli/speak-to-dev.ts";
import { ownIdentity } from "../../../lib/local/process-identity.ts";

let folder: string;
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "tributary-speak-")));
  await mkdir(join(folder, ".tributary"));
  const run = {
    ...{ ...ownIdentity(), project: folder, pipeline: "shop", consumers: {} },
    database: { url: "postgres://me@localhost:5433/shop", needsPassword: true },
    environment: {
      TRIBUTARY_STATE_TABLE: "tributary-shop",
      TRIBUTARY_DEV_DEFINITION: join(folder, "cdk", "pipeline.ts"),
    },
  };
  await writeFile(join(folder, "package.json"), "{}");
  await writeFile(join(folder, ".tributary", "dev.json"), JSON.stringify(run));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** Whether a verb with these options and this environment speaks to the run, and what it has of both then. */
async function verb(
  options: Readonly<Record<string, string>> = {},
  environment: Record<string, string | undefined> = {},
) {
  const command = new Command("backfill");
  for (const [name, value] of Object.entries(options)) command.setOptionValue(name, value);
  await speakToDev(command, { folder, environment });
  return {
    speaks: environment.TRIBUTARY_STATE_TABLE === "tributary-shop",
    url: environment.DATABASE_URL,
    pipeline: command.getOptionValue("pipeline") as string | undefined,
  };
}

it("lets a verb speak to the run that names its database and its definition, or none", async () => {
  const same = "postgres://other:secret@localhost:5433/shop";
  expect(await verb()).toMatchObject({ speaks: true });
  expect(await verb({}, { PGPASSWORD: "secret" })).toMatchObject({
    speaks: true,
    url: "postgres://me@localhost:5433/shop",
  });
  expect(await verb({}, { DATABASE_URL: same })).toMatchObject({ speaks: true, url: same });
  expect(await verb({ databaseUrl: same }, { DATABASE_URL: "postgres://me@prod/shop" })).toMatchObject({
    speaks: true,
  });
  const PG = { PGHOST: "localhost", PGPORT: "5433", PGDATABASE: "shop", PGUSER: "me" };
  expect(await verb({}, PG)).toMatchObject({ speaks: true });
  // What runs there has a slot of its own: not the definition as it is written.
  expect(await verb({ pipeline: "cdk/pipeline.ts" })).toEqual({
    speaks: true,
    url: undefined,
    pipeline: undefined,
  });
});

it("leaves a verb alone that names another database, definition, table, function or account", async () => {
  for (const [options, environment] of [
    [{}, { DATABASE_URL: "postgres://me:secret@prod.example.com/shop" }],
    [{}, { DATABASE_URL: "postgres://me:secret@localhost:5433/other" }],
    [{}, { PGHOST: "prod.example.com", PGDATABASE: "shop", PGUSER: "me" }],
    [{}, { PGHOST: "localhost" }],
    [{ databaseUrl: "postgres://me@prod.example.com/shop" }, {}],
    [{ pipeline: "other/pipeline.ts" }, {}],
    [{ stateTable: "theirs" }, {}],
    [{ function: "theirs" }, {}],
    [{}, { AWS_PROFILE: "work" }],
  ] as const) {
    const { speaks, url, pipeline } = await verb(options, { ...environment });
    expect({ speaks, url }, JSON.stringify([options, environment])).toEqual({
      speaks: false,
      url: "DATABASE_URL" in environment ? environment.DATABASE_URL : undefined,
    });
    expect(pipeline).toBe("pipeline" in options ? options.pipeline : undefined);
  }
});
