import { describe, expect, it } from "vitest";
import { inWords } from "../../../../lib/local/dev/clean.ts";
import { isOfName, isThisMachine } from "../../../../lib/local/dev/server-traces.ts";
import { devSlotName } from "../../../../lib/local/dev/slot-name.ts";
import { postgresSource } from "../../../../lib/source/postgres/definition.ts";
import { connectionFromUrl } from "../../../../lib/source/postgres/link/connection.ts";

describe("what tributary dev makes in a database", () => {
  it("has a name that PostgreSQL takes whole, further slots' too, and that the id tells apart", () => {
    for (const pipeline of ["a", "my-shop", "x".repeat(40), `shop-${"y".repeat(35)}`]) {
      const slot = devSlotName(pipeline, "a1b2c3");
      expect(
        postgresSource.safeParse({ kind: "postgres", tables: ["a.b"], slot, publication: slot, slots: 16 })
          .success,
      ).toBe(true);
      expect(slot).toMatch(/^tributary_dev_[a-z0-9_]+_a1b2c3$/);
    }
    expect(devSlotName("my-shop", "a1b2c3")).toBe("tributary_dev_my_shop_a1b2c3");
  });

  it("is ours by its whole name alone", () => {
    const name = devSlotName("mine", "a1b2c3");
    expect([name, `${name}_slot2`, `${name}_slot16`].every((found) => isOfName(found, name))).toBe(true);
    const others = [
      `${name}_slot17`,
      `${name}x`,
      devSlotName("mine", "a1b2c4"),
      devSlotName("min", "e_a1b2"),
    ];
    expect(others.filter((found) => isOfName(found, name))).toEqual([]);
  });

  it("is on this machine only where every server is", () => {
    const here = ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "localhost:5432,127.0.0.1:5433"];
    const there = [
      "db.example.com",
      "10.0.0.5",
      "localhost.example.com",
      "127.0.0.1,db.example.com",
      "1127.0.0.1",
    ];
    const of = (host: string) =>
      isThisMachine(connectionFromUrl(`postgres://me:p@${host}/app?sslmode=disable`));
    expect(here.filter((host) => !of(host))).toEqual([]);
    expect(there.filter(of)).toEqual([]);
    expect(isThisMachine(connectionFromUrl("postgres://me:p@/app?host=/var/run/postgresql"))).toBe(true);
  });

  it("is listed with its size, and its age where the server knows it", () => {
    const slot = {
      name: "tributary_dev_a_000000",
      database: "app",
      activePid: undefined,
      retainedBytes: 3_200_000_000,
    };
    const now = new Date("2026-01-10T00:00:00Z");
    const since = new Date("2026-01-01T00:00:00Z");
    expect(inWords({ ...slot, inactiveSince: since }, now)).toBe(
      "tributary_dev_a_000000  database app  keeps 3.2 GB of WAL  abandoned for 9 days",
    );
    expect(inWords({ ...slot, inactiveSince: undefined })).toContain("of WAL  abandoned");
    expect(inWords({ ...slot, activePid: 17, inactiveSince: since })).toContain("in use by process 17");
  });
});
