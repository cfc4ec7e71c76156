import { formatTable, type TableName } from "../change/table-pattern.ts";
import type { RouteTable } from "../definition/route.ts";
import type { SourceSettings } from "../source/source-kind.ts";
import { StoredSettingChangedError } from "./state-errors.ts";

/** The settings that decide the partition of a key. Stored at first start, refused if changed (rule 2). */
export interface StoredSettings {
  /** Hash and canonical key text: the version of the formats, not a choice. */
  readonly keyFormat: string;
  /** The kind of source; left out for the log, which came first. */
  readonly source?: string | undefined;
  /** Of a log only. */
  readonly publication?: string | undefined;
  readonly slot?: string | undefined;
  /** By table as people write it. `key` is null where the row's own key counts. */
  readonly tables: { readonly [table: string]: StoredRoute };
}

/** The topic of a table's changes. */
export interface StoredRoute {
  readonly topic: string;
  readonly partitions: number;
  readonly key: readonly string[] | null;
}

const KEY_FORMAT = "murmur3/1";

/** The settings of a definition for the tables it captures now, with what its kind of source says of it. */
export function settingsOf(
  { beside, ...source }: SourceSettings,
  route: RouteTable,
  tables: readonly TableName[],
): StoredSettings {
  return {
    keyFormat: KEY_FORMAT,
    ...source,
    tables: Object.fromEntries(
      [...tables, ...beside].map((table) => {
        const { topic, key } = route(table);
        return [formatTable(table), { topic: topic.name, partitions: topic.partitions, key: key ?? null }];
      }),
    ),
  };
}

/**
 * Returns what one of several slots is compared with: its own settings, and the tables of the others, which may come to it.
 * `now` says its names where it has none stored yet.
 */
export function storedBySlots(
  own: StoredSettings | undefined,
  records: readonly { readonly settings: StoredSettings | undefined }[],
  now: StoredSettings,
): StoredSettings | undefined {
  const known = records.flatMap(({ settings }) => settings ?? []);
  const [some] = known;
  if (some === undefined) return own;
  const tables = Object.assign({}, ...known.map((settings) => settings.tables), own?.tables);
  return { ...(own ?? { ...now, keyFormat: some.keyFormat, source: some.source }), tables };
}

/**
 * The settings to store from now on: the stored ones and the tables that are new.
 * @throws StoredSettingChangedError naming every setting that differs.
 */
export function mergeSettings(
  pipeline: string,
  stored: StoredSettings | undefined,
  now: StoredSettings,
): StoredSettings {
  if (!stored) return now;
  const changes: { setting: string; stored: string; now: string }[] = [];
  const compare = (setting: string, a: unknown, b: unknown) => {
    const [was, is] = [JSON.stringify(a ?? null), JSON.stringify(b ?? null)];
    if (was !== is) changes.push({ setting, stored: was, now: is });
  };
  compare("key format", stored.keyFormat, now.keyFormat);
  compare("source.kind", stored.source ?? "postgres", now.source ?? "postgres");
  compare("source.publication", stored.publication, now.publication);
  compare("source.slot", stored.slot, now.slot);
  for (const [table, route] of Object.entries(now.tables)) {
    const before = Object.hasOwn(stored.tables, table) ? stored.tables[table] : undefined;
    if (!before) continue;
    compare(`topic of ${table}`, before.topic, route.topic);
    compare(`partitions of ${table}`, before.partitions, route.partitions);
    compare(`key of ${table}`, before.key, route.key);
  }
  if (changes.length > 0) throw new StoredSettingChangedError(pipeline, changes);
  return { ...now, tables: { ...stored.tables, ...now.tables } };
}
