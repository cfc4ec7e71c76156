import { describe, expect, it } from "vitest";
import { databaseConnection } from "../../../lib/credentials/database-connection.ts";
import { iamToken } from "../../../lib/credentials/iam-token.ts";

const place = { host: "shop.abc.eu-west-1.rds.amazonaws.com", port: 5433, user: "tributary" };
const credentials = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secret" };

describe("an RDS IAM token", () => {
  it("is a signed URL for this host, port and user, of 15 minutes, without a scheme", async () => {
    const token = await iamToken({ ...place, region: "eu-west-1", credentials })();
    expect(token.startsWith(`${place.host}:5433`)).toBe(true);
    const { searchParams } = new URL(`https://${token}`);
    expect(Object.fromEntries(searchParams)).toMatchObject({
      Action: "connect",
      DBUser: "tributary",
      "X-Amz-Expires": "900",
      "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
      "X-Amz-Credential": expect.stringMatching(/^AKIDEXAMPLE\/\d{8}\/eu-west-1\/rds-db\/aws4_request$/),
      "X-Amz-Signature": expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect(token).not.toContain("secret");
  });

  it("is made anew at each call, with the credentials of that moment", async () => {
    let calls = 0;
    const rotating = async () => ({ ...credentials, accessKeyId: `AKID${++calls}` });
    const password = iamToken({ ...place, region: "eu-west-1", credentials: rotating });
    const keys = [await password(), await password()].map((token) =>
      new URL(`https://${token}`).searchParams.get("X-Amz-Credential")?.split("/").at(0),
    );
    expect(keys).toEqual(["AKID1", "AKID2"]);
  });

  it("that cannot be made may come later, and says which role is needed", async () => {
    const none = async () => {
      throw new Error("no credentials here");
    };
    await expect(iamToken({ ...place, region: "eu-west-1", credentials: none })()).rejects.toMatchObject({
      code: "IAM_TOKEN_UNAVAILABLE",
      retry: "retry",
      remedy: expect.stringContaining("rds-db:connect"),
    });
  });
});

describe("the capture task's connection", () => {
  const iam = {
    TRIBUTARY_DATABASE_AUTH: "iam",
    PGHOST: place.host,
    PGPORT: "5433",
    PGUSER: place.user,
    PGDATABASE: "shop",
    AWS_REGION: "eu-west-1",
  };

  it("by token is verify-full, and asks for a token at each connection", async () => {
    const options = await databaseConnection(iam);
    expect(options).toMatchObject({ ...place, database: "shop", tls: { mode: "verify-full" } });
    expect(options.password).toBeTypeOf("function");
  });

  it.each([
    ["TLS that shows the token", { ...iam, TRIBUTARY_TLS: "require" }, "TRIBUTARY_TLS"],
    ["the own machine without TLS", { ...iam, PGHOST: "localhost" }, "PGHOST"],
    ["a token and a password", { ...iam, PGPASSWORD: "hunter2" }, "PGPASSWORD"],
    ["a token and a URL", { ...iam, DATABASE_URL: "postgres://a:hunter2@b/c" }, "DATABASE_URL"],
    [
      "a token and a secret",
      { ...iam, TRIBUTARY_DATABASE_SECRET_ARN: "arn:x" },
      "TRIBUTARY_DATABASE_SECRET_ARN",
    ],
    ["a user beside a secret", { TRIBUTARY_DATABASE_SECRET_ARN: "arn:x", PGUSER: "me" }, "PGUSER"],
    ["an unknown way", { ...iam, TRIBUTARY_DATABASE_AUTH: "kerberos" }, "TRIBUTARY_DATABASE_AUTH"],
  ])("refuses %s, and shows no password", async (_what, environment, path) => {
    const refused = databaseConnection(environment);
    await expect(refused).rejects.toMatchObject({ code: "CONFIGURATION" });
    const { message } = await refused.then(
      () => new Error("not refused"),
      (error: Error) => error,
    );
    expect(message).toContain(path);
    expect(message).not.toContain("hunter2");
  });

  it("without either is what the environment says", async () => {
    const options = await databaseConnection({ DATABASE_URL: "postgres://me:pw@localhost/shop" });
    expect(options).toMatchObject({ user: "me", password: "pw", tls: { mode: "disable" } });
  });
});
