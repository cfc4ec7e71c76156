import type { Template } from "aws-cdk-lib/assertions";

/** A statement of a policy, its references resolved to text. */
export interface Statement {
  readonly effect: "Allow" | "Deny";
  readonly actions: readonly string[];
  readonly resources: readonly string[];
  readonly conditions: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
}

/** A call to AWS, as IAM sees it. */
export interface Request {
  readonly action: string;
  readonly resource: string;
  /** What the condition keys are in its context; one that is not named is absent. */
  readonly context?: Readonly<Record<string, readonly string[]>>;
}

/**
 * The statements of every role of a template, by its logical id without the hash. A reference to a resource reads as its logical
 * id: `{ "Fn::GetAtt": ["TableA1B2C3D4", "Arn"] }` as `Table`. Managed policies stand as statements of the one action `managed`.
 */
export function rolesOf(template: Template): Map<string, Statement[]> {
  const roles = new Map<string, Statement[]>();
  for (const [id, { Properties }] of Object.entries(template.findResources("AWS::IAM::Role"))) {
    const managed = ((Properties.ManagedPolicyArns ?? []) as unknown[]).map((arn) => textOf(arn));
    const inline = ((Properties.Policies ?? []) as { PolicyDocument: unknown }[]).flatMap((policy) =>
      statementsOf(policy.PolicyDocument),
    );
    roles.set(withoutHash(id), [
      ...managed.map(
        (arn): Statement => ({
          effect: "Allow",
          actions: ["managed"],
          resources: [arn],
          conditions: {},
        }),
      ),
      ...inline,
    ]);
  }
  for (const type of ["AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"]) {
    for (const { Properties } of Object.values(template.findResources(type))) {
      for (const role of (Properties.Roles ?? []) as unknown[])
        roles.get(textOf(role))?.push(...statementsOf(Properties.PolicyDocument));
    }
  }
  return roles;
}

/** Each right of a role in a line: `action on resource [condition]`, sorted. */
export function rightsOf(statements: readonly Statement[]): string[] {
  const lines = statements.flatMap(({ effect, actions, resources, conditions }) => {
    const where = Object.entries(conditions)
      .flatMap(([operator, keys]) =>
        Object.entries(keys).map(([key, values]) => ` if ${operator} ${key} ${values.join(" | ")}`),
      )
      .join("");
    const no = effect === "Deny" ? "never " : "";
    return actions.flatMap((action) => resources.map((resource) => `${no}${action} on ${resource}${where}`));
  });
  return [...new Set(lines)].sort();
}

/**
 * Whether IAM lets a request pass: allowed by a statement, denied by none.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
 * @throws Error for an operator of conditions that it does not know: nothing is taken for allowed by mistake.
 */
export function allows(statements: readonly Statement[], request: Request): boolean {
  const meant = statements.filter((statement) => applies(statement, request));
  return meant.some(({ effect }) => effect === "Allow") && !meant.some(({ effect }) => effect === "Deny");
}

function applies({ actions, resources, conditions }: Statement, { action, resource, context }: Request) {
  return (
    actions.some((pattern) => like(pattern.toLowerCase(), action.toLowerCase())) &&
    resources.some((pattern) => like(pattern, resource)) &&
    Object.entries(conditions).every(([operator, keys]) =>
      Object.entries(keys).every(([key, values]) => holds(operator, values, context?.[key])),
    )
  );
}

/** https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html */
function holds(operator: string, wanted: readonly string[], given: readonly string[] | undefined): boolean {
  switch (operator) {
    // Of no value at all it holds, too.
    case "ForAllValues:StringLike":
      return (given ?? []).every((value) => wanted.some((pattern) => like(pattern, value)));
    case "Null":
      return wanted.includes(String(given === undefined || given.length === 0));
    case "ArnLike":
    case "StringLike":
      return (given ?? []).some((value) => wanted.some((pattern) => like(pattern, value)));
    default:
      throw new Error(`the evaluator does not know ${operator}`);
  }
}

function like(pattern: string, text: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${source}$`, "s").test(text);
}

function statementsOf(document: unknown): Statement[] {
  return (document as { Statement: Record<string, unknown>[] }).Statement.map((statement) => {
    const { Effect, Action, Resource, Condition = {}, ...unknown } = statement;
    if (Object.keys(unknown).some((key) => key !== "Sid"))
      throw new Error(`unknown: ${Object.keys(unknown)}`);
    return {
      effect: Effect as "Allow" | "Deny",
      actions: [Action].flat().map(textOf),
      resources: [Resource].flat().map(textOf),
      conditions: Object.fromEntries(
        Object.entries(Condition as Record<string, Record<string, unknown>>).map(([operator, keys]) => [
          operator,
          Object.fromEntries(Object.entries(keys).map(([key, value]) => [key, [value].flat().map(textOf)])),
        ]),
      ),
    };
  });
}

function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  const [[kind, of] = ["", undefined]] = Object.entries(value as object);
  switch (kind) {
    case "Ref":
      return String(of).startsWith("AWS::") ? `<${of}>` : withoutHash(String(of));
    case "Fn::GetAtt":
      return withoutHash((of as string[])[0] as string);
    case "Fn::Join":
      return ((of as [string, unknown[]])[1] ?? []).map(textOf).join((of as [string])[0]);
    case "Fn::Sub":
      return String(of);
    default:
      throw new Error(`cannot read ${JSON.stringify(value)}`);
  }
}

/** CDK ends a logical id in eight hex digits of its path. */
function withoutHash(id: string): string {
  return id.replace(/[0-9A-F]{8}$/, "");
}
