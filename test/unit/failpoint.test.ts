import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { arm, failpoint } from "../../lib/failpoint.ts";

const run = promisify(execFile);

describe("failpoints", () => {
  test("are empty when nothing is armed", () => {
    expect(arm(undefined)("before-effect")).toBeUndefined();
    expect(arm("")("before-effect")).toBeUndefined();
    expect(failpoint("before-effect")).toBeUndefined();
  });

  test("act at the n-th time the place is reached, once", () => {
    const armed = arm("before-effect=throw@3,after-effect=throw");
    armed("before-effect");
    armed("before-effect");
    expect(() => armed("after-effect")).toThrow("failpoint after-effect");
    expect(() => armed("before-effect")).toThrow("failpoint before-effect");
    armed("before-effect");
    armed("fence-closed");
  });

  test("a wrong name or action is refused", () => {
    for (const wrong of ["nowhere=kill", "before-effect=explode", "before-effect", "before-effect=kill@x"]) {
      expect(() => arm(wrong)).toThrow(RangeError);
    }
  });

  test("kill ends the process at that place", async () => {
    const file = JSON.stringify(pathToFileURL(resolve("lib/failpoint.ts")).href);
    const script = `import { failpoint } from ${file};
      for (let i = 1; i < 5; i++) { process.stdout.write(String(i)); failpoint("before-feedback"); }`;
    const ended = await run(process.execPath, ["--input-type=module", "-e", script], {
      env: { TRIBUTARY_FAILPOINTS: "before-feedback=kill@2", NODE_NO_WARNINGS: "1" },
    }).catch((error: { signal: string; stdout: string }) => error);
    expect(ended).toMatchObject({ signal: "SIGKILL", stdout: "12" });
  });
});
