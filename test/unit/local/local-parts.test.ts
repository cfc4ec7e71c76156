import { expect, test } from "vitest";
import { LocalPartsMissingError } from "../../../lib/local/local-errors.ts";
import { localParts } from "../../../lib/local/local-parts.ts";
import manifest from "../../../package.json" with { type: "json" };

const notFound = (name: string) =>
  Object.assign(
    new Error(`Cannot find package '${name}' imported from /app/node_modules/tributary-cdc/x.js`),
    {
      code: "ERR_MODULE_NOT_FOUND",
    },
  );

test("here they are this project's own", async () => {
  expect(await localParts()).toMatchObject({
    startEmulators: expect.any(Function),
    startEmbeddedPostgres: expect.any(Function),
  });
});

test("where the package is missing, the error names what to install, in its own version", async () => {
  const missing = localParts(() => Promise.reject(notFound("tributary-cdc-local")));
  await expect(missing).rejects.toThrow(LocalPartsMissingError);
  await expect(missing).rejects.toMatchObject({
    remedy: `npm install --save-dev tributary-cdc-local@${manifest.version}`,
  });
});

test("what goes wrong within the package is its own error", async () => {
  for (const error of [notFound("dynalite"), new SyntaxError("unexpected token")])
    await expect(localParts(() => Promise.reject(error))).rejects.toBe(error);
});
