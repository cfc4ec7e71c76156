import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { readSettings } from "../../cdk/settings.ts";
import repository from "../../package.json" with { type: "json" };
import { inShell, NewUser } from "./new-user.ts";
import { type Block, blocksOf, commandsOf } from "./page-blocks.ts";
import { PageDatabase } from "./page-database.ts";
import { ShellCommand } from "./shell-command.ts";

/*
 * What the first pages tell to type: every block of TypeScript is checked against the packed package, every command is run, those with
 * a database's URL on one that is as the pages say. What is not run says why. A command that nothing here knows fails. The tutorial
 * is also played from its beginning to its end: tutorial.test.ts.
 */

const minute = 60_000;
const PAGES = ["README.md", "docs/00-tutorial.md", "package/README.md", "package/create/README.md"];

let user: NewUser;
let database: PageDatabase;
let places = 0;
const blocks: Block[] = [];
const running: ShellCommand[] = [];
beforeAll(async () => {
  for (const page of PAGES) blocks.push(...(await blocksOf(page)));
  user = await NewUser.begin();
  database = await PageDatabase.start();
});
afterEach(endAll);
afterAll(async () => {
  await database?.stop();
  await user?.end();
});

/** A command that runs until Ctrl-C, and is ended in any case. */
function starts(folder: string, words: readonly string[]): ShellCommand {
  const [name = "", ...args] = words;
  const command = new ShellCommand(folder, name, ...args);
  running.push(command);
  return command;
}

/** Ends what has not ended as it should have. */
async function endAll(): Promise<void> {
  for (const command of running.splice(0)) await command.end();
}

/** Ends a command by Ctrl-C, in good order: with 0 and its last words. npx hides the 0: behind its command it ends by the signal. */
async function stops(command: ShellCommand, words: readonly string[], lastWords: string): Promise<void> {
  expect(await command.interrupt()).toBe(words[0] === "npx" ? "SIGINT" : 0);
  await command.prints(lastWords);
}

/** `tail`: prints an order as it is placed, as JSON or for people, until Ctrl-C. */
async function tails(folder: string, words: readonly string[]): Promise<void> {
  const tail = starts(folder, words);
  await tail.prints("streaming from slot");
  const number = await database.order(words);
  const forPeople = words.includes("--pretty");
  await tail.prints(
    new RegExp(forPeople ? `insert +public\\.orders .*${number}` : `^{"op":"c",.*"number":"${number}"`, "m"),
  );
  await stops(tail, words, 'the slot "tributary_tail" stays');
}

/** `npm start` on a database: counts an order that is placed, until Ctrl-C. */
async function counts(words: readonly string[]): Promise<void> {
  const host = starts(".", words);
  await host.prints("streaming from slot");
  await database.order(words);
  await host.prints(/public\.orders create 1\b/);
  await stops(host, words, "the slot tributary_local stays");
}

/** `npm start`: its workload's changes take effect, until Ctrl-C. */
async function demonstrates(words: readonly string[]): Promise<void> {
  const demo = starts(".", words);
  await demo.prints(/order-summary .*, applied [1-9]/);
  await stops(demo, words, "stopping …");
}

/** `npm create`, but for what npm would fetch; with a database, the project has its table, and a test that is green. */
async function creates(words: readonly string[]): Promise<string> {
  const [name = "", ...options] = words.slice("npm create tributary-cdc".split(" ").length);
  // The pages make projects of the same name.
  const place = join("places", String(++places));
  const project = await user.installed(join(place, name));
  const { stdout } = await inShell(
    join(user.directory, place),
    ...["node", user.create, name, "--no-install", ...options.filter((word) => word !== "--")],
  );
  expect(stdout).toMatch(/new +tributary\.config\.ts\n/);
  if (options.length === 0) return project;
  expect(stdout).toMatch(/ public\.orders +key id; /);
  expect(await readFile(join(project, "tributary.config.ts"), "utf8")).toContain('"public.orders"');
  const tested = await inShell(project, "npm", "test");
  expect(tested.stdout).toMatch(/pass 1\s.*fail 0\s/s);
  return project;
}

/** `dev` on a database, in a project that was made on it: an order reaches the handler, until Ctrl-C. */
async function develops(words: readonly string[]): Promise<void> {
  const url = words.find((word) => word.startsWith("postgres://")) ?? "";
  const create = "npm create tributary-cdc my-changes -- --database-url".split(" ");
  const dev = starts(await creates([...create, url]), words);
  await dev.prints("running; from another terminal");
  await database.order(words);
  await dev.prints("create in public.orders");
  await stops(dev, words, "stopping …");
}

/** A script of a project of init's that tutorial.test.ts runs: the tutorial has it, and its test sees that it was done. */
async function isPlayed(words: readonly string[]): Promise<void> {
  const line = words.join(" ");
  const tutorial = blocks
    .filter(({ language, place }) => language === "sh" && place.startsWith("docs/00-tutorial.md:"))
    .flatMap(commandsOf);
  expect(tutorial.map((command) => command.join(" "))).toContain(line);
  const player = await readFile("test/cdk/tutorial.test.ts", "utf8");
  expect(/expect\(done\)\.toEqual\(\s*expect\.arrayContaining\(([^)]*)\)/.exec(player)?.[1]).toContain(
    `"${line}"`,
  );
}

/** What is done with a command of each form, the first that fits. The words' URLs are of the test's own server. */
const COMMANDS: readonly (readonly [form: string, run: (words: readonly string[]) => unknown])[] = [
  ["npm create tributary-cdc", creates],
  ["npx tributary-cdc tail", async (words) => tails(await aProject(), words)],
  ["npx tributary-cdc dev", develops],
  ["npm run -s tributary -- tail", (words) => tails(".", words)],
  ["npm start -- --database-url", counts],
  ["npm start", demonstrates],
  ["npm run dev", isPlayed],
  ["npm run typecheck", isPlayed],
  ["npx cdk synth", isPlayed],
  // The tutorial's is played as well.
  ["npm test", () => expect(repository.scripts.test).toBe("vitest run")],
  // Not run: it would install this project's packages anew while its tests run.
  ["npm ci", () => readFile("package-lock.json")],
  // Not run: the registry does not have ours yet. That they can be installed is what `NewUser` shows.
  [
    "npm install",
    (words) => {
      const ours = ["tributary-cdc", "tributary-cdc-local"];
      const others = Object.keys({ ...repository.dependencies, ...repository.devDependencies });
      for (const word of words.slice(2)) {
        if (word === "--save-dev") continue;
        expect([...ours, ...others]).toContain(word.replace(/(?<=.)@.*$/, ""));
      }
    },
  ],
  // Not run: it needs an account. The script is there.
  [
    "npm run deploy",
    async () => {
      const manifest = JSON.parse(await readFile(join(await aProject(), "package.json"), "utf8"));
      expect(manifest.scripts).toHaveProperty("deploy");
    },
  ],
  // Not run: it needs an account. Its settings are read as the app reads them.
  [
    "npx cdk deploy",
    (words) => {
      const given = words
        .slice(3)
        .filter((word) => word !== "-c")
        .map((word) => word.split("=") as [string, string]);
      const asked: string[] = [];
      const full = (value: string) => value.replace("…", "-1");
      readSettings((name) => {
        asked.push(name);
        const value = given.find(([setting]) => setting === name)?.[1];
        return value === undefined ? undefined : name.endsWith("Arn") ? `arn:${value}` : full(value);
      });
      for (const [name] of given) expect(asked).toContain(name);
    },
  ],
  // The commands behind it are run in a folder that was made for them.
  ["cd", (words) => expect(words).toHaveLength(2)],
];

let project: Promise<string> | undefined;
function aProject(): Promise<string> {
  const make = async () => {
    const made = await user.installed("of-pages");
    await inShell(made, "node", user.create, "--no-install");
    return made;
  };
  project ??= make();
  return project;
}

/** Runs a command as its form is run. @throws Error where no form is its own, or it does not do what its page says */
async function runs(words: readonly string[]): Promise<void> {
  const form = COMMANDS.find(([known]) => `${words.join(" ")} `.startsWith(`${known} `));
  if (!form) throw new Error("nothing here knows how to run it");
  try {
    await form[1](await database.reached(words));
  } finally {
    await endAll();
  }
}

test("every command of the first pages does what they say", { timeout: 10 * minute }, async () => {
  const commands = blocks
    .filter(({ language }) => language === "sh")
    .flatMap((block) => commandsOf(block).map((words) => ({ words, place: block.place })));
  expect(commands.length).toBeGreaterThan(15);
  const wrong: string[] = [];
  for (const { words, place } of commands) {
    await runs(words).catch((error: Error) => wrong.push(`${place}: ${words.join(" ")}: ${error.message}`));
  }
  expect(wrong).toEqual([]);
});

/** Names that a page takes for granted, and what stands for them. */
const IMPORTED: Readonly<Record<string, readonly string[]>> = {
  "tributary-cdc": ["consumer", "Operation"],
  "tributary-cdc/pipeline": ["definePipeline", "postgres"],
  "tributary-cdc/cdk": ["CdcPipeline"],
};
const DECLARED: Readonly<Record<string, string>> = {
  index: "declare function index(row: object, signal: AbortSignal): Promise<void>;",
  notify: "declare function notify(id: unknown, key: string): Promise<void>;",
  remove: "declare function remove(key: object): Promise<void>;",
  handler: `declare const handler: import("tributary-cdc").KinesisHandler;`,
  definition: `declare const definition: import("tributary-cdc/pipeline").Pipeline;`,
  vpc: `declare const vpc: import("aws-cdk-lib/aws-ec2").IVpc;`,
  database: `declare const database: import("aws-cdk-lib/aws-rds").IDatabaseInstance;`,
  secret: `declare const secret: import("aws-cdk-lib/aws-secretsmanager").ISecret;`,
  self: `declare const self: import("aws-cdk-lib").Stack;`,
};

/** The block as a file of its own: with what it takes for granted in front. */
function asFile({ text, place }: Block): string {
  const code = text.replaceAll("(this, ", "(self, ");
  const uses = (name: string) => new RegExp(String.raw`(?<![.\w"])${name}\b(?!\s*:)`).test(code);
  const makes = (name: string) =>
    new RegExp(String.raw`\b(?:const|function) ${name}\b|import [^;]*\b${name}\b[^;]* from`).test(code);
  const missing = (name: string) => uses(name) && !makes(name);
  const imports = Object.entries(IMPORTED).flatMap(([from, names]) => {
    const wanted = names.filter(missing);
    return wanted.length > 0 ? [`import { ${wanted.join(", ")} } from "${from}";`] : [];
  });
  const declared = Object.entries(DECLARED).flatMap(([name, line]) => (missing(name) ? [line] : []));
  return [`// ${place}`, ...imports, ...declared, code, "export {};\n"].join("\n");
}

test("every block of TypeScript of the first pages has the types of the package", async () => {
  const directory = join(await aProject(), "src", "pages");
  await mkdir(directory);
  const code = blocks.filter(({ language }) => language === "ts");
  expect(code.length).toBeGreaterThan(6);
  for (const [i, block] of code.entries()) {
    // The tutorial's test stands beside its handler.
    const name = /^\/\/ src\/(\S+)\n/.exec(block.text)?.[1] ?? `block-${i}.ts`;
    await writeFile(join(directory, name), asFile(block));
  }
  const { stdout } = await inShell(await aProject(), "npx", "tsc").catch(
    (error: { stdout: string }) => error,
  );
  expect(stdout).toBe("");
});

test("a command that is wrong is found", async () => {
  const tail = "npm run -s tributary -- tail --database-url postgres://me:secret@localhost/mydb".split(" ");
  await expect(runs([...tail, "--tabels", "public.*"])).rejects.toThrow(/unknown option/);
  await expect(runs(["npx", "tributary-cdc", "tial"])).rejects.toThrow(/nothing here knows/);
});

test("a block that is wrong is found", async () => {
  const directory = join(await aProject(), "src", "pages");
  const block = {
    language: "ts",
    place: "nowhere:1",
    text: `definePipeline({ name: 17, source: postgres({}) });\n`,
  };
  await writeFile(join(directory, "wrong.ts"), asFile(block));
  const { stdout } = await inShell(await aProject(), "npx", "tsc").catch(
    (error: { stdout: string }) => error,
  );
  expect(stdout).toMatch(/^src\/pages\/wrong\.ts\(\d+,\d+\): error TS2\d+: /);
});
