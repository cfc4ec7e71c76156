import { expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, ids, MemoryRecord, OpenSource, superuser } from "./source.ts";

eachPostgres("a logical message that only looks like ours", (server) => {
  test("from a role without any right moves no table away", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query("CREATE TABLE public.t (id int PRIMARY KEY)");
    const role = `nobody_${new URL(url).pathname.slice(1)}`;
    await sql.query(`CREATE ROLE ${role} LOGIN`);
    const [record, pipeline] = [new MemoryRecord(), definition(url)];
    const source = await OpenSource.open(url, { record, pipeline });
    const content = JSON.stringify({ from: pipeline.source.slot, tables: ["public.t"] });
    await sql.query(`SET ROLE ${role}`);
    await sql.query("SELECT pg_logical_emit_message(true, 'tributary.move', $1::text)", [content]);
    await sql.query("RESET ROLE");
    await sql.query("INSERT INTO public.t VALUES (1)");
    await source.until(1);
    expect(source.error).toBeUndefined();
    await eventually(() => source.log.lines.some((line) => line.includes("still has them: ignored")), {
      what: "the warning",
    });
    await source.close();
    const again = await OpenSource.open(url, { record, pipeline });
    await sql.query("INSERT INTO public.t VALUES (2)");
    await again.until(1);
    expect(ids(again.changes)).toContain(2);
    await again.close();
    await sql.end();
  });
});
