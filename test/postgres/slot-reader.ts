import pg from "pg";
import type { SourceChange, SourceMessage } from "../../lib/change/change-stream.ts";
import type { ChangeEventJson } from "../../lib/change/event.ts";
import { parseLsn } from "../../lib/change/lsn.ts";
import {
  definePipeline,
  type LogPipeline,
  type PipelineInput,
  postgres,
} from "../../lib/definition/pipeline.ts";
import { routeTables } from "../../lib/definition/route.ts";
import type { EmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { pgTypeCatalog } from "../../lib/source/postgres/catalog/type-catalog.ts";
import { ChangeDecoder } from "../../lib/source/postgres/decode/change-decoder.ts";
import type { ChangeDecoderOptions } from "../../lib/source/postgres/decode/decoder-options.ts";
import { sessionSettings } from "../../lib/source/postgres/link/session.ts";
import { freshDatabase } from "./server.ts";

/** One pgoutput message as the SQL functions of a slot give it. */
export interface SlotMessage {
  readonly lsn: bigint;
  readonly payload: Buffer;
}

/** A definition that captures everything, with more on top. */
export function anyPipeline(
  more: Partial<Omit<PipelineInput, "name" | "source">> = {},
  source: Partial<Parameters<typeof postgres>[0]> = {},
): LogPipeline {
  return definePipeline({ name: "shop", source: postgres({ tables: ["*.*"], ...source }), ...more });
}

/** A session with the settings of ours, over plain `pg`: the database's defaults are overruled or the test fails. */
export async function openPinned(url: string, clientEncoding?: "SQL_ASCII"): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, options: sessionSettings("UTF8") });
  await client.connect();
  if (clientEncoding) await client.query(`SET client_encoding = '${clientEncoding}'`);
  return client;
}

/** A slot and publication read through SQL, without a replication connection. */
export class SlotReader {
  readonly client: pg.Client;
  readonly name: string;

  constructor(client: pg.Client, name: string) {
    this.client = client;
    this.name = name;
  }

  static async create(client: pg.Client, publication: string): Promise<SlotReader> {
    const { rows } = await client.query<{ database: string }>("SELECT current_database() AS database");
    const name = `s_${rows[0]?.database.replace(/\W/g, "_")}`.slice(0, 60);
    await client.query(`CREATE PUBLICATION p ${publication}`);
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [name]);
    return new SlotReader(client, name);
  }

  /** Everything since the last `take`. */
  async take(): Promise<SlotMessage[]> {
    const { rows } = await this.client.query<{ lsn: string; data: Buffer }>(
      "SELECT lsn::text, data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')",
      [this.name],
    );
    return rows.map((row) => ({ lsn: parseLsn(row.lsn), payload: row.data }));
  }

  async drop(): Promise<void> {
    await this.client.query("SELECT pg_drop_replication_slot($1)", [this.name]);
  }
}

/** A decoder of everything, over the catalog of `client`'s database. */
export function decoderOver(client: pg.Client, options: Partial<ChangeDecoderOptions> = {}): ChangeDecoder {
  const pipeline = options.pipeline ?? anyPipeline();
  return new ChangeDecoder({
    pipeline,
    database: "shop",
    epoch: 1,
    route: routeTables(pipeline),
    catalog: pgTypeCatalog((sql, values) => client.query(sql, values)),
    encoding: "utf-8",
    ...options,
  });
}

export async function decodeAll(
  decoder: ChangeDecoder,
  messages: readonly SlotMessage[],
): Promise<SourceMessage[]> {
  const out: SourceMessage[] = [];
  for (const { lsn, payload } of messages) await decoder.decode(payload, lsn, out);
  return out;
}

export function changesOf(messages: readonly SourceMessage[]): SourceChange[] {
  return messages.filter((message) => message.kind === "change");
}

/** The event of a change, closed as the writer closes it. */
export function eventOf(change: SourceChange): ChangeEventJson {
  return JSON.parse(`${change.json},"after":null}}`);
}

/** A database of its own with a publication and a slot, made after `setup`; all gone afterwards. */
export async function withSlot(
  server: EmbeddedPostgres,
  setup: string,
  work: (client: pg.Client, slot: SlotReader) => Promise<void>,
  publication = "FOR ALL TABLES",
): Promise<void> {
  const client = await openPinned(await freshDatabase(server));
  try {
    await client.query(setup);
    const slot = await SlotReader.create(client, publication);
    await work(client, slot);
    await slot.drop();
  } finally {
    await client.end();
  }
}
