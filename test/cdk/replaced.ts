import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";

/** A resource of a template, as far as a comparison looks. */
export interface TemplateResource {
  readonly Type: string;
  readonly Properties?: Readonly<Record<string, unknown>>;
  readonly DeletionPolicy?: string;
  readonly UpdateReplacePolicy?: string;
}

/** Resources by logical id. */
export type Resources = Readonly<Record<string, TemplateResource>>;

/** What a deploy of a changed template does to resources that are there. */
export interface Effect {
  /** Logical ids of those that CloudFormation makes anew, or may. */
  readonly replaced: readonly string[];
  /** Logical ids of those that the new template has no more. */
  readonly removed: readonly string[];
}

interface KnownType {
  readonly cloudFormationType: string;
  /** It holds data, so that losing it loses more than a setting. */
  readonly isStateful?: boolean;
  readonly properties: Readonly<
    Record<string, { readonly causesReplacement?: "yes" | "no" | "maybe" } | undefined>
  >;
}

let known: ReadonlyMap<string, KnownType> | undefined;

/** CloudFormation's own resource types as `cdk diff` knows them: the database of the CLI that is installed. */
function types(): ReadonlyMap<string, KnownType> {
  if (known) return known;
  const cli = dirname(createRequire(import.meta.url).resolve("aws-cdk/package.json"));
  const { schema } = JSON.parse(gunzipSync(readFileSync(join(cli, "db.json.gz"))).toString("utf8")) as {
    schema: { resource: { entities: readonly KnownType[] } };
  };
  known = new Map(schema.resource.entities.map((type) => [type.cloudFormationType, type]));
  return known;
}

/** Returns true if the type holds data. */
export function isStateful({ Type }: TemplateResource): boolean {
  return types().get(Type)?.isStateful === true;
}

/** Compares two templates as `cdk diff` does; what refers to a replaced resource by a property that replaces is replaced too. */
export function effectOf(before: Resources, after: Resources): Effect {
  const ids = Object.keys(before);
  const replaced = new Set<string>();
  for (let found = -1; found < replaced.size; ) {
    found = replaced.size;
    for (const id of ids) {
      const [was, is] = [before[id], after[id]];
      if (was && is && makesAnew(was, is, replaced)) replaced.add(id);
    }
  }
  return { replaced: [...replaced], removed: ids.filter((id) => !after[id]) };
}

function makesAnew(was: TemplateResource, is: TemplateResource, replaced: ReadonlySet<string>): boolean {
  if (was.Type !== is.Type) return true;
  const names = new Set([...Object.keys(was.Properties ?? {}), ...Object.keys(is.Properties ?? {})]);
  return [...names].some((name) => {
    const effect = types().get(is.Type)?.properties[name]?.causesReplacement ?? "no";
    if (effect === "no") return false;
    const [old, now] = [was.Properties?.[name], is.Properties?.[name]].map((value) => JSON.stringify(value));
    return old !== now || [...replaced].some((id) => now?.includes(`"${id}"`));
  });
}
