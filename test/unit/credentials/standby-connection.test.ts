import { expect, it } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { STANDBY_VARIABLE, standbyConnection } from "../../../lib/credentials/standby-connection.ts";

const primary = { PGHOST: "primary", PGUSER: "tributary", PGPASSWORD: "secret", PGDATABASE: "shop" };

it("is where the URL says, and who we are there as at the primary", async () => {
  expect(await standbyConnection(primary)).toBeUndefined();
  expect(
    await standbyConnection({ ...primary, [STANDBY_VARIABLE]: "postgres://replica:5433/" }),
  ).toMatchObject({
    ...{ host: "replica", port: 5433, user: "tributary", password: "secret", database: "shop" },
  });
  const whole = {
    DATABASE_URL: "postgres://a:b@primary/shop",
    [STANDBY_VARIABLE]: "postgres://c:d@replica/shop",
  };
  expect(await standbyConnection(whole)).toMatchObject({ host: "replica", user: "c", password: "d" });
});

it("has an IAM token for its own name", async () => {
  const connection = await standbyConnection({
    ...{
      PGHOST: "primary.x.rds.amazonaws.com",
      PGUSER: "tributary",
      PGDATABASE: "shop",
      TRIBUTARY_TLS: "verify-full",
    },
    ...{ TRIBUTARY_DATABASE_AUTH: "iam", AWS_REGION: "eu-west-1" },
    [STANDBY_VARIABLE]: "postgres://replica.x.rds.amazonaws.com/",
  });
  expect(connection).toMatchObject({ host: "replica.x.rds.amazonaws.com", user: "tributary" });
  expect(typeof connection?.password).toBe("function");
});

it("is one server: of several the one that takes writes would be looked for", async () => {
  for (const url of ["postgres://a,b/shop", "postgres://u:p@a,b/shop", "postgres://a/shop?host=b,c"])
    await expect(standbyConnection({ ...primary, [STANDBY_VARIABLE]: url })).rejects.toThrow(
      /name one standby/,
    );
});

it("that is no URL is refused, and not shown", async () => {
  const refused = standbyConnection({ ...primary, [STANDBY_VARIABLE]: "replica:secret" });
  await expect(refused).rejects.toThrow(ConfigurationError);
  await expect(refused).rejects.toThrow(/TRIBUTARY_BACKFILL_DATABASE_URL: write postgres/);
  await expect(refused).rejects.not.toThrow(/secret/);
});

it("may be an IPv6 address, with and without a password, and its parameters count", async () => {
  const of = (url: string) => standbyConnection({ ...primary, [STANDBY_VARIABLE]: url });
  for (const user of ["", "a:b@"]) {
    expect(await of(`postgres://${user}[2001:db8::7]:5433/shop?sslmode=require`)).toMatchObject({
      ...{ host: "2001:db8::7", port: 5433, database: "shop", tls: { mode: "require" } },
    });
    await expect(of(`postgres://${user}replica/shop?pgbouncer=true`)).rejects.toThrow(ConfigurationError);
  }
  expect(await of("postgres://[::1]/shop")).toMatchObject({ host: "::1", port: 5432 });
});
