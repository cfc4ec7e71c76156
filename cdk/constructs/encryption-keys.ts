import { createHash } from "node:crypto";
import { Annotations, CfnParameter, CfnRule, Fn, RemovalPolicy, Token } from "aws-cdk-lib";
import type * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import type { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { outputKey } from "../../lib/definition/stack-outputs.ts";
import { allow } from "./grants.ts";

/** Keys that the owner of a pipeline has named. */
export interface NamedKeys {
  /** Undefined: the pipeline makes a key of its own. */
  readonly encryptionKey: kms.IKey | undefined;
  readonly previousKeys: readonly kms.IKey[];
}

/** Stands for a key that the pipeline makes. */
const OWN = "the pipeline's own";

/**
 * Checks the keys by themselves.
 * @throws ConfigurationError for an alias, and for a key that is named twice.
 */
export function checkKeys({ encryptionKey, previousKeys }: NamedKeys): void {
  const named = [
    ...(encryptionKey ? [["encryptionKey", encryptionKey] as const] : []),
    ...previousKeys.map((key, i) => [`previousKeys[${i}]`, key] as const),
  ];
  const seen = new Map<string, string>();
  const problems = named.flatMap(([path, key]) => {
    const value = nameOf(key);
    const twin = seen.get(value);
    seen.set(value, twin ?? path);
    if ("aliasName" in key)
      return [
        {
          path,
          value,
          remedy: "name the key itself (kms.Key.fromKeyArn): policies permit keys, not aliases",
        },
      ];
    if (twin === undefined) return [];
    return [{ path, value, remedy: `leave it out: ${twin} is the same key` }];
  });
  if (problems.length > 0) throw new ConfigurationError("CdcPipeline", problems);
}

/** Permits roles to read what was stored under keys that the pipeline had before, and to store nothing under them. */
export function allowPreviousKeys(roles: readonly iam.IGrantable[], previousKeys: readonly kms.IKey[]): void {
  if (previousKeys.length === 0) return;
  const arns = previousKeys.map(({ keyArn }) => keyArn);
  for (const role of roles) allow(role, ["kms:Decrypt"], arns);
}

/**
 * Has CloudFormation refuse a deploy, before it touches anything, that changes the key and names no previous one. A synth knows nothing of
 * what is deployed; a parameter does: its default counts at the first deploy, and later ones keep its value. Other `previousKeys` are
 * another parameter, so that its default counts again: whoever names the former key, or takes it out, is let through. So is whoever
 * changes the key while `previousKeys` changes in another way, and the first deploy that has the parameter: nothing is known there.
 * https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference-rules.html
 */
export function refuseUnreadable(scope: Construct, pipeline: string, keys: NamedKeys): void {
  const current = keys.encryptionKey ? nameOf(keys.encryptionKey) : OWN;
  const id = `${outputKey({ pipeline, resource: "encryptionKey" })}Name${digest(keys.previousKeys.map(nameOf))}`;
  const parameter = new CfnParameter(scope, "EncryptionKeyName", {
    type: "String",
    default: current,
    description: `Tributary pipeline ${pipeline}: its encryption key as of the last deploy. Leave it as it is`,
  });
  parameter.overrideLogicalId(id);
  const rule = new CfnRule(scope, "SameEncryptionKey", {
    assertions: [
      {
        assert: Fn.conditionEquals(parameter.valueAsString, current),
        assertDescription: `The encryption key of the pipeline ${pipeline} is another one than before, and what is stored under the former key could no longer be read. Add the former key (the stack's output ${outputKey({ pipeline, resource: "encryptionKey" })} is its ARN) to previousKeys of CdcPipeline, and deploy again. If it is the same key, named in another way, deploy with --parameters '${id}=${current}'. Nothing was touched.`,
      },
    ],
  });
  rule.overrideLogicalId(`${id}Rule`);
}

/**
 * Warns of a change from the pipeline's own key where that key goes with the data: it leaves the stack, and CloudFormation schedules its
 * deletion, which ends its use at once. A synth does not know whose the former key was.
 * https://docs.aws.amazon.com/kms/latest/developerguide/deleting-keys.html
 */
export function warnOfDeletedKey(scope: Construct, keys: NamedKeys, removalPolicy: RemovalPolicy): void {
  if (!keys.encryptionKey || keys.previousKeys.length === 0 || removalPolicy !== RemovalPolicy.DESTROY)
    return;
  Annotations.of(scope).addWarningV2(
    "tributary:former-key-deleted",
    "removalPolicy DESTROY: if the former key is the pipeline's own, this change has it deleted, and from then on nothing that was stored under it can be read. Deploy with removalPolicy RETAIN_ON_UPDATE_OR_DELETE first, and change the key after that. Where it has happened: aws kms cancel-key-deletion and aws kms enable-key, within 30 days. If the former key was named, it is in no danger.",
  );
}

/** The ARN where it is known at synth, else where the key stands in the app. */
function nameOf(key: kms.IKey): string {
  return Token.isUnresolved(key.keyArn) ? key.node.path : key.keyArn;
}

function digest(names: readonly string[]): string {
  if (names.length === 0) return "";
  return createHash("sha256").update(JSON.stringify(names.toSorted())).digest("hex").slice(0, 8);
}
