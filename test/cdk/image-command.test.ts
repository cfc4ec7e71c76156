import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

/* `npm run image`, on a machine without Docker. */

const PROJECT = fileURLToPath(new URL("../..", import.meta.url));

let directory = "";
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "tributary-image-command-"));
  mkdirSync(join(directory, "tmp"));
});
afterAll(() => rmSync(directory, { recursive: true }));

function image(...args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["cdk/image.ts", ...args], {
    cwd: PROJECT,
    encoding: "utf8",
    env: { ...process.env, CDK_DOCKER: "no-docker-here", TMPDIR: join(directory, "tmp") },
    timeout: 60_000,
  });
  return { status, stdout, stderr };
}

test("writes the build context and says how to build it elsewhere; a second time too", () => {
  const output = join(directory, "context");
  const authority = join(directory, "ca.pem");
  const make =
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority";
  execFileSync("openssl", [...make.split(" "), "-keyout", join(directory, "ca.key"), "-out", authority], {
    stdio: "ignore",
  });
  const first = image("--output", output);
  expect(first.status).toBe(1);
  expect(first.stderr).toMatch(/NOT BUILT: no-docker-here cannot be started here/);
  expect(first.stderr).toMatch(/no-docker-here build --platform linux\/arm64 --tag tributary-capture /);
  expect(readFileSync(join(output, "Dockerfile"), "utf8")).toMatch(/^ADD .*global-bundle\.pem/m);
  // A server with an authority of its own: the stack's task looks for this file.
  expect(image("--output", output, "--certificate-authority", authority).status).toBe(1);
  expect(readFileSync(join(output, "database.pem"), "utf8")).toBe(readFileSync(authority, "utf8"));
  expect(readFileSync(join(output, "Dockerfile"), "utf8")).toMatch(
    /^COPY --chmod=444 database\.pem \.\/authorities\/$/m,
  );
  expect(readFileSync(join(output, "Dockerfile"), "utf8")).not.toMatch(/^ADD/m);
  expect(readdirSync(join(directory, "tmp"))).toEqual([]);
});

test("a folder of other files is refused as its output, and left as it is", () => {
  const folder = join(directory, "project");
  mkdirSync(join(folder, "src"), { recursive: true });
  writeFileSync(join(folder, "src", "precious.ts"), "export {};");
  writeFileSync(join(folder, "Dockerfile"), "FROM scratch");
  const { status, stderr } = image("--output", folder);
  expect(status).toBe(1);
  expect(stderr).toContain("--output: name a folder that is new or empty");
  expect(readdirSync(folder).sort()).toEqual(["Dockerfile", "src"]);
  expect(readdirSync(join(folder, "src"))).toEqual(["precious.ts"]);
});
