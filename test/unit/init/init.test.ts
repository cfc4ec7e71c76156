import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { PassThrough } from "node:stream";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { runInNewContext } from "node:vm";
import { transform } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Table } from "../../../lib/init/database-tables.ts";
import { type InitOptions, init, terminalAsk } from "../../../lib/init/init.ts";
import { projectFiles } from "../../../lib/init/project-files.ts";
import { VERSIONS } from "../../../lib/init/versions.ts";
import project from "../../../package.json" with { type: "json" };
import { eventually } from "../../eventually.ts";

let root: string;
let count = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tributary-init-"));
});
afterAll(() => rm(root, { recursive: true }));

/** A folder of its own with these files. */
async function folder(files: Readonly<Record<string, string>> = {}): Promise<string> {
  const directory = join(root, `shop-${++count}`);
  await mkdir(directory);
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(directory, path)), { recursive: true });
    await writeFile(join(directory, path), text);
  }
  return directory;
}

/** Runs init there without npm; gives what it said. */
async function initIn(directory: string, options: Partial<InitOptions> = {}): Promise<string> {
  const said: string[] = [];
  await init(
    { directory, install: false, yes: true, ...options },
    { say: (line) => void said.push(line), ask: undefined },
  );
  return said.join("\n");
}

/** Every file below a folder, with its text. */
async function contents(directory: string): Promise<Record<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8")));
  return Object.fromEntries(files.map((file, i) => [file.slice(directory.length + 1), texts[i] as string]));
}

const manifestIn = async (directory: string) =>
  JSON.parse(await readFile(join(directory, "package.json"), "utf8")) as Record<
    string,
    Record<string, unknown>
  >;

test("an empty folder becomes a project: every file, and what to do next", async () => {
  const directory = await folder();
  const said = await initIn(directory);
  expect(Object.keys(await contents(directory)).sort()).toEqual([
    ...[".gitignore", "README.md", "cdk.json", "cdk/app.ts", "package.json", "schema.sql"],
    ...["src/orders.test.ts", "src/orders.ts", "tributary.config.ts", "tsconfig.json"],
  ]);
  for (const next of [`cd ${directory}`, "npm install", "npm run dev", "npm test", "npx cdk synth"])
    expect(said).toContain(next);
  expect(await manifestIn(directory)).toMatchObject({
    name: `shop-${count}`,
    type: "module",
    scripts: { dev: "tributary dev", deploy: "cdk deploy", typecheck: "tsc" },
    dependencies: { "tributary-cdc": project.version },
    devDependencies: { "tributary-cdc-local": project.version, node: project.devDependencies.node },
  });
  expect((await contents(directory))[".gitignore"]?.split("\n")).toEqual(
    expect.arrayContaining([".tributary", "node_modules", "cdk.out", ".env"]),
  );
});

test("a folder that is not there is made, with those above it", async () => {
  const directory = join(await folder(), "deep", "down");
  await initIn(directory);
  expect(Object.keys(await contents(directory))).toContain("tributary.config.ts");
});

test("a second time nothing is changed, and that is said", async () => {
  const directory = await folder();
  await initIn(directory);
  const before = await contents(directory);
  expect(await initIn(directory)).toContain("already");
  expect(await contents(directory)).toEqual(before);
});

describe("nothing is overwritten", () => {
  test("files with another text are listed, all of them, and none is written", async () => {
    const mine = { "tributary.config.ts": "mine", "src/orders.ts": "mine", "README.md": "# Mine" };
    const directory = await folder(mine);
    const failed = initIn(directory);
    for (const path of Object.keys(mine))
      await expect(failed).rejects.toThrow(`${path}: it is there with another text`);
    expect(await contents(directory)).toEqual(mine);
  });

  test("a package.json keeps what it has, how it is indented too, and is told what could not be added", async () => {
    const mine = {
      ...{ name: "@acme/shop", version: "3.1.4", type: "module", license: "MIT" },
      scripts: { test: "vitest run", lint: "biome check" },
      dependencies: { zod: "4.6.7" },
      devDependencies: { typescript: "6.0.0", "tributary-cdc": "file:../tributary.tgz" },
    };
    const directory = await folder({
      "package.json": JSON.stringify(mine, undefined, "\t"),
      "src/own.ts": "",
    });
    const said = await initIn(directory);
    const text = (await contents(directory))["package.json"] ?? "";
    expect(text).toMatch(/^\{\n\t"name"/);
    const { scripts, dependencies, devDependencies, ...rest } = await manifestIn(directory);
    expect(rest).toMatchObject({ name: "@acme/shop", version: "3.1.4", license: "MIT" });
    expect(scripts).toMatchObject({ ...mine.scripts, dev: expect.any(String), deploy: "cdk deploy" });
    expect(dependencies).toEqual(mine.dependencies);
    expect(devDependencies).toMatchObject({ ...mine.devDependencies, "aws-cdk": VERSIONS["aws-cdk"] });
    expect(said).toContain('the script "test" stays as it is; ours would be: node --test');
    expect(said).toContain("typescript stays at 6.0.0");
    expect(said).not.toContain("tributary-cdc stays");
    expect(text).toContain('"file:../tributary.tgz"');
    // The pipeline is called as the package is, without its scope.
    expect((await contents(directory))["tributary.config.ts"]).toContain('name: "shop"');
  });

  test("what npm init writes becomes a package of modules with a test", async () => {
    const manifest = { name: "mine", main: "index.js", type: "commonjs" };
    const scripts = { test: 'echo "Error: no test specified" && exit 1' };
    const directory = await folder({ "package.json": JSON.stringify({ ...manifest, scripts }) });
    await initIn(directory);
    expect(await manifestIn(directory)).toMatchObject({
      type: "module",
      scripts: { test: 'node --test "src/**/*.test.ts"' },
    });
  });

  test.each([{}, { type: "commonjs" }])(
    "a package %o with sources of its own is not made one of modules",
    async (more) => {
      const files = {
        "package.json": JSON.stringify({ name: "mine", ...more }),
        "src/index.js": "module.exports = 1",
      };
      const directory = await folder(files);
      await expect(initIn(directory)).rejects.toThrow(/package\.json: its "type" is not "module"/);
      expect(await contents(directory)).toEqual(files);
    },
  );

  test("a .gitignore gets the lines that it lacks, at its end", async () => {
    const directory = await folder({ ".gitignore": "node_modules\n/build" });
    await initIn(directory);
    expect((await contents(directory))[".gitignore"]).toBe(
      "node_modules\n/build\ncdk.out\n.tributary\n.env\n",
    );
  });

  test.each(["app/server/index.js", "packages/api/main.ts"])(
    "sources are found wherever they stand: %s",
    async (path) => {
      const files = { "package.json": JSON.stringify({ name: "mine", type: "commonjs" }), [path]: "" };
      const directory = await folder(files);
      await expect(initIn(directory)).rejects.toThrow(/package\.json: its "type" is not "module"/);
      expect(await contents(directory)).toEqual(files);
    },
  );

  test.each(["README.md", "src", ".gitignore"])("a link that leads nowhere stops it: %s", async (path) => {
    const directory = await folder();
    await symlink(join(directory, "nowhere"), join(directory, path));
    await expect(initIn(directory)).rejects.toThrow(`${path} is a link that leads nowhere`);
    expect(await readdir(directory)).toEqual([path]);
  });

  test.skipIf(process.getuid?.() === 0).each(["cdk", "package.json"])(
    "what may not be written to stops it: %s",
    async (path) => {
      const files = { "cdk/notes": "mine", "package.json": '{"type":"module"}' };
      const directory = await folder(files);
      await chmod(join(directory, path), 0o500);
      await expect(initIn(directory)).rejects.toThrow(/may not be written to/);
      expect(await contents(directory)).toEqual(files);
    },
  );

  test.each(["/.env\n.env\n!.env\n", " .env\n", "# .env\n", ".env\n!.*\n"])(
    "git leaves the password out whatever .gitignore says: %j",
    async (text) => {
      const directory = await folder({ ".gitignore": text });
      await initIn(directory);
      const git = (...args: string[]) => promisify(execFile)("git", args, { cwd: directory });
      await git("init", "-q");
      expect((await git("check-ignore", ".env")).stdout.trim()).toBe(".env");
      expect(await initIn(directory)).toContain("nothing was changed");
    },
  );

  test("a package.json that is none stops it", async () => {
    const directory = await folder({ "package.json": "{" });
    await expect(initIn(directory)).rejects.toThrow(/package\.json: it is no JSON object/);
    expect(await contents(directory)).toEqual({ "package.json": "{" });
  });

  test("a folder where a file should be, and a file where a folder should be, stop it", async () => {
    const directory = await folder({ src: "a file", "tsconfig.json/x": "" });
    const before = await contents(directory);
    await expect(initIn(directory)).rejects.toThrow(/src\/orders\.ts: a folder stands where a file should/);
    expect(await contents(directory)).toEqual(before);
  });
});

describe("a wrong command line", () => {
  test.each([
    ["capitals", "Shop", /lower-case letters/],
    ["a digit first", "1shop", /lower-case letters/],
    ["41 letters", "a".repeat(41), /at most 40/],
    ["a module of Node", "events", /npm takes no package of that name/],
    ["our own name", "tributary-cdc", /npm installs no package into another one/],
  ])("%s in --name", async (_what, name, message) => {
    const directory = await folder();
    await expect(initIn(directory, { name })).rejects.toThrow(message);
    expect(await contents(directory)).toEqual({});
  });

  test("a folder whose name is no name asks for one", async () => {
    const directory = join(await folder(), "2026");
    await expect(initIn(directory)).rejects.toThrow(/--name: choose one with --name/);
    await initIn(directory, { name: "shop" });
    expect((await contents(directory))["tributary.config.ts"]).toContain('name: "shop"');
  });

  test("a file in the place of the folder", async () => {
    const directory = join(await folder({ shop: "a file" }), "shop");
    await expect(initIn(directory)).rejects.toThrow(`${directory} is a file`);
    await expect(initIn(join(directory, "below"))).rejects.toThrow(`${directory} is a file`);
  });

  test.skipIf(process.getuid?.() === 0)("a folder that may not be written to", async () => {
    const directory = await folder();
    await chmod(directory, 0o500);
    await expect(initIn(directory)).rejects.toThrow(/may not be written to/);
    await expect(initIn(join(directory, "below"))).rejects.toThrow(/may not be written to/);
  });

  test("tables without a database", async () => {
    const directory = await folder();
    await expect(initIn(directory, { tables: ["public.orders"] })).rejects.toThrow(
      /--tables: say --database-url too/,
    );
    expect(await contents(directory)).toEqual({});
  });

  test("a database that is not there: nothing is written, and the password is not shown", async () => {
    const directory = await folder();
    const failed = initIn(directory, { databaseUrl: "postgres://me:geheim@127.0.0.1:1/shop" }).catch(
      (error: Error) => error,
    );
    expect(String(await failed)).toMatch(/127\.0\.0\.1:1 cannot be reached/);
    expect(String(await failed)).not.toContain("geheim");
    expect(await contents(directory)).toEqual({});
  });

  test("a URL that is none", async () => {
    const directory = await folder();
    await expect(initIn(directory, { databaseUrl: "mysql://h/d" })).rejects.toThrow(/DATABASE_URL/);
    expect(await contents(directory)).toEqual({});
  });
});

test("a question is answered with a line; one that is broken off ends it, and nothing is written", async () => {
  const terminal = () => Object.assign(new PassThrough(), { isTTY: true });
  expect(terminalAsk(new PassThrough(), terminal())).toBeUndefined();
  const [keys, screen] = [terminal(), terminal()];
  const ask = terminalAsk(keys, screen);
  const answer = ask?.("Which? ");
  keys.write("1, 2\n");
  expect(await answer).toBe("1, 2");
  expect(String(screen.read())).toContain("Which? ");
  const directory = await folder();
  const options: InitOptions = { directory, install: false, yes: false };
  const [ctrlC, ctrlD] = ["\u0003", "\u0004"];
  for (const key of [ctrlC, ctrlD]) {
    const unanswered = init(options, { say: () => {}, ask: terminalAsk(keys, screen) });
    await eventually(() => screen.read() !== null, { what: "the question" });
    keys.write(key);
    await expect(unanswered).rejects.toThrow(/not answered, and nothing was written/);
  }
  expect(await contents(directory)).toEqual({});
});

test("names of tables and columns cannot break out of the code that is written", async () => {
  const hostile = ['x"; */ $', "{process.exit()} ` \n {{name}} -- \\"].join("");
  const column = {
    name: hostile,
    type: `"${hostile}"`,
    base: "text",
    kind: "value",
    nullable: false,
  } as const;
  const files = projectFiles({
    name: "shop",
    tables: [
      {
        schema: "public",
        table: hostile,
        columns: [column],
        key: [hostile],
        bytes: 0,
        rows: 0,
        obstacle: undefined,
      },
    ],
    database: undefined,
  });
  for (const [path, text] of files)
    if (path.endsWith(".ts")) {
      const { code } = await transform(text, { loader: "ts" });
      expect(code).not.toMatch(/^\s*process\.exit/m);
    }
});

test("tables whose names come to one have types of their own, and names are quoted where TypeScript needs it", async () => {
  const table = (name: string, ...columns: string[]): Table => ({
    ...{ schema: "public", table: name, key: columns.slice(0, 1), bytes: 0, rows: 0, obstacle: undefined },
    columns: columns.map((column) => {
      return { name: column, type: "text", base: "text", kind: "value", nullable: false } as const;
    }),
  });
  const files = projectFiles({
    name: "shop",
    tables: [
      table("m²", "m²", "½", "__proto__", "await", "größe"),
      table("order_items", "id"),
      table("OrderItems", "id"),
      table("order items", "id"),
    ],
    database: undefined,
  });
  for (const [path, text] of files) if (path.endsWith(".ts")) await transform(text, { loader: "ts" });
  const types = files.get("src/m².ts")?.matchAll(/^export type (\S+) = /gm) ?? [];
  expect([...types].map(([, name]) => name)).toEqual([
    "MRow",
    "OrderItemsRow",
    "OrderItemsRow2",
    "OrderItemsRow3",
  ]);
  const sample = /const row: MRow = (\{.*?\n\});/s.exec(files.get("src/m².test.ts") ?? "")?.[1];
  const row: object = runInNewContext(`(${sample})`);
  expect(Object.keys(row)).toEqual(["m²", "½", "__proto__", "await", "größe"]);
});

test("the versions of a new project are those of this one", () => {
  const { dependencies, devDependencies, version } = project;
  const here: Record<string, string> = { ...dependencies, ...devDependencies, "tributary-cdc": version };
  expect(VERSIONS).toEqual(Object.fromEntries(Object.keys(VERSIONS).map((name) => [name, here[name]])));
});

test("the verb and the program of npm create are one", async () => {
  const programs = ["lib/cli/main.ts", "lib/init/main.ts"];
  for (const program of programs) {
    const directory = await folder();
    const path = fileURLToPath(new URL(`../../../${program}`, import.meta.url));
    const args = [path, "init", directory, "--no-install", "--yes"];
    const environment = { ...process.env, DATABASE_URL: "" };
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { env: environment });
    expect([stdout, stderr]).toEqual([expect.stringContaining("tributary.config.ts"), ""]);
    const again = promisify(execFile)(process.execPath, [path, "init", directory, "--name", "X"]);
    await expect(again).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining("--name") });
  }
});
