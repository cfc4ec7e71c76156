import { Aspects, CfnResource, type IAspect, Stack, Validations } from "aws-cdk-lib";
import * as iam from "aws-cdk-lib/aws-iam";
import type { IConstruct } from "constructs";

/** A resource's metadata where cdk-nag 2 looks for answers: https://github.com/cdklabs/cdk-nag/tree/v2#suppressing-a-rule */
const METADATA = "cdk_nag";

interface Answers {
  readonly rules_to_suppress: readonly object[];
}

/**
 * Says why a finding of cdk-nag does not apply to a construct and what is in it; `appliesTo` narrows it to what ends so.
 * It stands in the template as cdk-nag 2 writes it, and among the acknowledged rules of CDK, which cdk-nag 3 reads: an app that checks with
 * either finds nothing, one that checks with none need not install it.
 */
export function acknowledge(
  construct: IConstruct,
  rule: string,
  reason: string,
  ...appliesTo: readonly string[]
): void {
  const answer = {
    id: rule,
    reason,
    ...(appliesTo.length > 0
      ? { applies_to: appliesTo.map((end) => ({ regex: `/^.*${literally(end)}$/` })) }
      : {}),
  };
  for (const resource of construct.node.findAll().filter(CfnResource.isCfnResource)) {
    const answers = resource.getMetadata(METADATA) as Answers | undefined;
    resource.addMetadata(METADATA, { rules_to_suppress: withAnswer(answers, answer) });
  }
  if (appliesTo.length === 0) Validations.of(construct).acknowledge({ id: rule, reason });
  else Aspects.of(construct).add(new FindingsAcknowledged(rule, reason, appliesTo));
}

/**
 * Acknowledges findings by their ends. cdk-nag 3 knows them by their whole names alone (`AwsSolutions-IAM5[Resource::<Bucket.Arn>/changes/*]`),
 * and what a policy names is known only when the app is synthesized.
 */
class FindingsAcknowledged implements IAspect {
  readonly #rule: string;
  readonly #reason: string;
  readonly #ends: readonly string[];

  constructor(rule: string, reason: string, ends: readonly string[]) {
    this.#rule = rule;
    this.#reason = reason;
    this.#ends = ends;
  }

  visit(node: IConstruct): void {
    for (const finding of findingsOf(node)) {
      if (!this.#ends.some((end) => finding.endsWith(end))) continue;
      Validations.of(node).acknowledge({ id: `${this.#rule}[${finding}]`, reason: this.#reason });
    }
  }
}

interface Statement {
  readonly Action?: unknown;
  readonly Resource?: unknown;
}

/** Names of what the rules IAM4 and IAM5 of cdk-nag find in a role or a policy. */
function findingsOf(node: IConstruct): readonly string[] {
  const of = (value: unknown): unknown => Stack.of(node).resolve(value);
  const named = (kind: string, values: unknown) =>
    (Array.isArray(values) ? values : [values]).map((value) => `${kind}::${inOneText(value)}`);
  if (node instanceof iam.CfnRole) return named("Policy", of(node.managedPolicyArns) ?? []);
  if (!(node instanceof iam.CfnPolicy)) return [];
  const { Statement: statements = [] } = of(node.policyDocument) as { Statement?: readonly Statement[] };
  return statements.flatMap(({ Action, Resource }) => [
    ...named("Action", Action ?? []),
    ...named("Resource", Resource ?? []),
  ]);
}

/** A value of CloudFormation in one text, as cdk-nag writes it: `<Bucket.Arn>/changes/*`. */
function inOneText(value: unknown): string {
  if (typeof value === "string") return value.replaceAll("${", "<").replaceAll("}", ">");
  const part = value as Readonly<Record<string, unknown>>;
  if (Array.isArray(part["Fn::Join"])) {
    const [delimiter, items] = part["Fn::Join"] as [string, readonly unknown[]];
    return items.map(inOneText).join(delimiter);
  }
  if (Array.isArray(part["Fn::GetAtt"])) {
    return `<${part["Fn::GetAtt"].map(inOneText).join(".")}>`;
  }
  for (const name of ["Fn::Sub", "Fn::ImportValue"]) if (part[name]) return inOneText(part[name]);
  return part.Ref ? `<${inOneText(part.Ref)}>` : JSON.stringify(value);
}

function withAnswer(answers: Answers | undefined, answer: object): readonly object[] {
  const given = answers?.rules_to_suppress ?? [];
  const text = JSON.stringify(answer);
  return given.some((one) => JSON.stringify(one) === text) ? given : [...given, answer];
}

function literally(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
