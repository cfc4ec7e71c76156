import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { inShell, NewUser } from "./new-user.ts";

/*
 * A new user's way from the packed tarballs: init in a folder with nothing but them, then everything that its README promises. What
 * npm would fetch from a registry is this project's own.
 */

let user: NewUser;
beforeAll(async () => {
  user = await NewUser.begin();
});
afterAll(() => user.end());

/** Everything that the README of a project says works. */
function works(name: string, tables: readonly string[]) {
  const project = () => join(user.directory, name);

  test("npm test is green", async () => {
    const { stdout } = await inShell(project(), "npm", "test");
    expect(stdout).toMatch(/pass 1\s.*fail 0\s/s);
  });

  test("npm run typecheck finds nothing", async () => {
    await inShell(project(), "npm", "run", "typecheck");
  });

  test("npx cdk synth makes the consumer, with the handler bundled", async () => {
    await inShell(project(), "npx", "cdk", "synth", "--quiet");
    const out = join(project(), "cdk.out");
    const template = await readFile(join(out, `tributary-${name}.template.json`), "utf8");
    const { Resources } = JSON.parse(template) as {
      Resources: Record<string, { Type: string; Properties: unknown }>;
    };
    const resources = Object.values(Resources);
    const mappings = resources.filter(({ Type }) => Type === "AWS::Lambda::EventSourceMapping");
    expect(mappings).toHaveLength(1);
    for (const table of tables) expect(JSON.stringify(mappings)).toContain(table);
    expect(resources.map(({ Type }) => Type)).toContain("AWS::ECS::Service");
    const assets = (await readdir(out)).filter((asset) => asset.startsWith("asset."));
    const bundles = await Promise.all(
      assets.map((asset) => readFile(join(out, asset, "index.mjs"), "utf8").catch(() => "")),
    );
    expect(bundles.filter((bundle) => tables.every((table) => bundle.includes(`"${table}"`)))).not.toEqual(
      [],
    );
  });
}

describe("from the tarballs, on the embedded server", () => {
  test("init in the folder makes the project, and says so the second time", async () => {
    const project = await user.installed("shop");
    const { stdout } = await inShell(project, "npx", "tributary-cdc", "init", "--no-install");
    expect(stdout).toMatch(/new +tributary\.config\.ts\n/);
    expect(stdout).toMatch(/extended +package\.json\n/);
    const manifest = JSON.parse(await readFile(join(project, "package.json"), "utf8")) as object;
    expect(manifest).toMatchObject({
      type: "module",
      dependencies: { "tributary-cdc": "file:../tributary-cdc.tgz" },
    });
    const again = await inShell(project, "npx", "tributary-cdc", "init", "--no-install");
    expect(again.stdout).toContain("nothing was changed");
  });
  works("shop", ["public.orders"]);
});

describe("npm create, on a database of one's own", () => {
  test("its tables are in the project, and its password where git does not look", async () => {
    const server = await startEmbeddedPostgres();
    try {
      const client = new pg.Client({ connectionString: server.url });
      await client.connect();
      await client.query(`
        CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN cents AS bigint;
        CREATE TABLE members (
          id uuid PRIMARY KEY, email text NOT NULL, mood mood NOT NULL, balance cents NOT NULL, tags text[] NOT NULL, facts jsonb NOT NULL,
          ratio float8 NOT NULL, active bool NOT NULL, "odd ""name""" int NOT NULL, born date, half int GENERATED ALWAYS AS (1) STORED
        );
        CREATE TABLE payments (member uuid, line smallint, amount numeric(10,2) NOT NULL, PRIMARY KEY (member, line));`);
      await client.end();
      const project = await user.installed("club");
      const { stdout } = await inShell(
        user.directory,
        ...["node", user.create, "club", "--no-install", "--database-url", server.url],
      );
      expect(stdout).toContain("public.members");
      expect((await stat(join(project, ".env"))).mode & 0o777).toBe(0o600);
      const files = (await readdir(project, { recursive: true })).filter(
        (file) => !file.startsWith("node_modules"),
      );
      const password = new URL(server.url).password;
      expect(password).not.toBe("");
      for (const file of files) {
        const text = await readFile(join(project, file), "utf8").catch(() => "");
        expect([file, text.includes(password)]).toEqual([file, file === ".env"]);
      }
    } finally {
      await server.stop();
    }
  });
  works("club", ["public.members", "public.payments"]);
});

test("the package that npm create fetches is small and needs no other", async () => {
  const { dependencies, version, bin } = JSON.parse(
    await readFile(join(user.directory, "package", "package.json"), "utf8"),
  ) as { dependencies?: object; version: string; bin: object };
  expect(dependencies).toBeUndefined();
  expect(bin).toEqual({ "create-tributary-cdc": "create.mjs" });
  const { version: library } = JSON.parse(
    await readFile(join(user.modules, "tributary-cdc", "package.json"), "utf8"),
  );
  expect(version).toBe(library);
  expect((await stat(user.create)).size).toBeLessThan(500 * 1024);
});
