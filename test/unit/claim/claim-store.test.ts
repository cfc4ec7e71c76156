import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { claimOf } from "../../../lib/change/claim-store.ts";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { DirectoryClaimStore } from "../../../lib/claim-check/directory-claim-store.ts";
import { claimLocation, claimStoreFromEnvironment } from "../../../lib/claim-check/open-claim-store.ts";
import { readConfiguration } from "../../../lib/consume/api/configuration.ts";

describe("TRIBUTARY_CLAIM_BUCKET", () => {
  test.each([
    ["s3://my-bucket", { kind: "s3", bucket: "my-bucket", prefix: "" }],
    ["s3://my-bucket/", { kind: "s3", bucket: "my-bucket", prefix: "" }],
    ["s3://my.bucket/a/b//", { kind: "s3", bucket: "my.bucket", prefix: "a/b/" }],
    ["file:///var/claims%20x/", { kind: "directory", path: "/var/claims x" }],
  ])("%s", (url, location) => {
    expect(claimLocation(url)).toEqual(location);
  });

  test.each([
    "my-bucket",
    "s3://My_Bucket",
    "s3:///prefix",
    `s3://my-bucket/${"x".repeat(201)}`,
    "https://my-bucket.s3.amazonaws.com",
    "file://relative/path",
    "file:///",
    "file:///%zz",
  ])("%s is a configuration error that says what to write", async (url) => {
    const environment = { TRIBUTARY_CLAIM_BUCKET: url };
    const expected = {
      problems: [
        { path: "TRIBUTARY_CLAIM_BUCKET", value: url, remedy: expect.stringContaining("s3://bucket") },
      ],
    };
    await expect(claimStoreFromEnvironment(environment)).rejects.toBeInstanceOf(ConfigurationError);
    await expect(claimStoreFromEnvironment(environment)).rejects.toMatchObject(expected);
    const consumer = { TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_POISON: "stop" };
    expect(() => readConfiguration({ ...consumer, ...environment })).toThrow(ConfigurationError);
  });

  test("none is no store", async () => {
    expect(await claimStoreFromEnvironment({})).toBeUndefined();
    expect(await claimStoreFromEnvironment({ TRIBUTARY_CLAIM_BUCKET: "" })).toBeUndefined();
  });
});

describe("a directory", () => {
  const signal = new AbortController().signal;
  let root: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), "tributary-claims-"));
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  test("gives back what was put, also after it was put again", async () => {
    const store = new DirectoryClaimStore(join(root, "made when needed"));
    const bytes = Buffer.from("some bytes");
    const claim = claimOf(store, "a/b/c", bytes);
    await store.put(claim, bytes, signal);
    await store.put(claim, bytes, signal);
    expect(Buffer.from(await store.get(claim, signal))).toEqual(bytes);
  });

  test("a key that leads out of it is refused", async () => {
    await writeFile(join(root, "secret"), "secret");
    const store = new DirectoryClaimStore(join(root, "inner"));
    const claim = { ...claimOf(store, "x", Buffer.from("secret")), key: "../secret" };
    await expect(store.get(claim, signal)).rejects.toMatchObject({ code: "CLAIM_MISMATCH" });
    await expect(store.put(claim, Buffer.from("other!"), signal)).rejects.toMatchObject({
      code: "CLAIM_MISMATCH",
    });
  });

  test("what stands in the way is a typed stop", async () => {
    await writeFile(join(root, "a file"), "");
    const store = new DirectoryClaimStore(join(root, "a file"));
    const claim = claimOf(store, "x/y", Buffer.from("a"));
    await expect(store.put(claim, Buffer.from("a"), signal)).rejects.toMatchObject({
      code: "CLAIM_STORE_REFUSED",
    });
    // A directory has the object's name: what was written is taken away again.
    const place = new DirectoryClaimStore(join(root, "place"));
    await mkdir(join(root, "place", claim.key, "z"), { recursive: true });
    await expect(place.put(claim, Buffer.from("a"), signal)).rejects.toMatchObject({
      retry: expect.any(String),
    });
    expect(await readdir(join(root, "place", "x"))).toEqual([basename(claim.key)]);
    await mkdir(join(root, "loop"));
    await symlink("x", join(root, "loop", "x"));
    const loop = new DirectoryClaimStore(join(root, "loop"));
    await expect(loop.get({ ...claim, key: "x" }, signal)).rejects.toMatchObject({
      code: "CLAIM_STORE_REFUSED",
    });
  });
});
