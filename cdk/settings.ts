import * as z from "zod";
import { ConfigurationError } from "../lib/change/tributary-error.ts";

const flag = z.union([z.boolean(), z.stringbool()]);

/** Target of the example app: `cdk deploy -c name=value`, or `context` of cdk.json. */
const settings = z.object({
  stackName: z.string().optional(),
  /** An existing VPC; default: a new one of isolated subnets. */
  vpcId: z.string().startsWith("vpc-", { error: "write a VPC's id: vpc-…" }).optional(),
  endpoints: z.enum(["create", "existing"], { error: "write create or existing" }).optional(),
  /** The database; what is missing is a parameter of the stack. */
  databaseHost: z.string().optional(),
  databasePort: z.coerce.number().int().min(1).max(65_535).default(5432),
  databaseName: z.string().default("shop"),
  databaseUser: z.string().default("tributary"),
  authentication: z.enum(["secret", "iam"], { error: "write secret or iam" }).default("secret"),
  databaseSecretArn: z.string().startsWith("arn:", { error: "write the secret's whole ARN" }).optional(),
  databaseResourceId: z.string().optional(),
  databaseSecurityGroupId: z.string().startsWith("sg-", { error: "write sg-…" }).optional(),
  /** A secret with host, port, dbname, username and password of the read model; without it order-summary is left out. */
  readModelSecretArn: z.string().startsWith("arn:", { error: "write the secret's whole ARN" }).optional(),
  /** An image of the capture task that exists already; default: built from here. */
  captureImage: z.string().optional(),
  alarmEmail: z.email({ error: "write an e-mail address" }).optional(),
  /** Deletes everything with the stack: for trials. */
  deleteData: flag.default(false),
});

/** The settings of the example app, with their defaults. */
export type Settings = z.output<typeof settings>;

/**
 * Reads them from the context.
 * @throws ConfigurationError naming every one that is wrong.
 */
export function readSettings(context: (name: string) => unknown): Settings {
  const names = Object.keys(settings.shape);
  const given = Object.fromEntries(names.map((name) => [name, context(name) ?? undefined]));
  const parsed = settings.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new ConfigurationError(
    "The app's context",
    parsed.error.issues.map(({ path, message }) => ({
      path: path.join("."),
      value: given[String(path[0])],
      remedy: message,
    })),
  );
}
