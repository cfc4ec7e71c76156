import { Token } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import type { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { identityOf, PipelineEndpoints } from "./pipeline-endpoints.ts";

/** VPC and subnets of a part. */
export interface Placement {
  readonly vpc: ec2.IVpc;
  /** Default: private subnets with a way out, else isolated ones. Public ones only where they are named. */
  readonly vpcSubnets?: ec2.SubnetSelection | undefined;
}

/**
 * The way to AWS's services out of isolated subnets. `create`: interface and gateway endpoints are made (in this
 * app; they cost by the hour). `existing`: the VPC has them, or another way out. `PipelineEndpoints`: those that several pipelines
 * share; a VPC can have one of each. Left out: there must be a NAT.
 */
export type Endpoints = "create" | "existing" | PipelineEndpoints;

/**
 * Returns the subnets that a placement chooses; `part` is its place in the props.
 * @throws ConfigurationError where there are none, or public ones alone and nobody named them.
 */
export function selectSubnets(part: string, { vpc, vpcSubnets }: Placement): ec2.SelectedSubnets {
  const path = `${part}.vpcSubnets`;
  const { subnetType, subnetGroupName, subnets } = vpcSubnets ?? {};
  const type =
    vpc.privateSubnets.length > 0
      ? ec2.SubnetType.PRIVATE_WITH_EGRESS
      : vpc.isolatedSubnets.length > 0
        ? ec2.SubnetType.PRIVATE_ISOLATED
        : undefined;
  // A selection by zone or filter alone names no sort of subnets: CDK would take public ones where there are no others.
  const isNamed = (subnetType ?? subnetGroupName ?? subnets) !== undefined;
  if (vpcSubnets && (isNamed || type)) {
    const value = asText(vpcSubnets);
    const wanted = isNamed || !type ? vpcSubnets : { ...vpcSubnets, subnetType: type };
    const selected = inWords(path, value, () => vpc.selectSubnets(wanted));
    if (selected.subnetIds.length > 0 || selected.isPendingLookup) return selected;
    throw refused(path, value, `the VPC ${nameOf(vpc)} has no such subnets: name others`);
  }
  if (type) return vpc.selectSubnets({ subnetType: type });
  if (vpc.publicSubnets.length > 0)
    throw refused(
      path,
      undefined,
      `the VPC ${nameOf(vpc)} has public subnets alone, which are taken only when they are named: vpcSubnets: { subnetType: ec2.SubnetType.PUBLIC } (the capture task gets a public address), or a VPC with private or isolated ones`,
    );
  throw refused(
    path,
    undefined,
    `the VPC ${nameOf(vpc)} is known without its subnets: import it by Vpc.fromLookup, or give privateSubnetIds or isolatedSubnetIds to Vpc.fromVpcAttributes`,
  );
}

/** A consumer's part of the network. */
interface ConsumerPlacement {
  readonly vpc?: ec2.IVpc;
  readonly vpcSubnets?: ec2.SubnetSelection;
  readonly endpoints?: "existing" | PipelineEndpoints;
}

/** @throws ConfigurationError where a part of the pipeline would have no way to AWS's services. */
export function checkNetwork(
  placement: Placement,
  endpoints: Endpoints | undefined,
  consumers: readonly { readonly name: string }[],
  settingsOf: (consumer: string) => ConsumerPlacement,
): void {
  checkWayOut("capture", placement, endpoints);
  if (endpoints instanceof PipelineEndpoints) checkSameVpc("endpoints", placement.vpc, endpoints);
  for (const { name } of consumers) {
    const { vpc, vpcSubnets, endpoints: own } = settingsOf(name);
    if (!vpc) continue;
    // Endpoints are of one VPC.
    const shared = isSameVpc(vpc, placement.vpc) || endpoints === "existing" ? endpoints : undefined;
    checkWayOut(`consumers.${name}`, { vpc, vpcSubnets }, own ?? shared);
    if (own instanceof PipelineEndpoints) checkSameVpc(`consumers.${name}.endpoints`, vpc, own);
  }
}

/** Returns the endpoints of a pipeline: those that it is given, or those that it has made. */
export function openEndpoints(
  scope: Construct,
  placement: Placement,
  endpoints: Endpoints | undefined,
): PipelineEndpoints | undefined {
  if (endpoints !== "create") return endpoints === "existing" ? undefined : endpoints;
  const { vpc } = placement;
  const { subnets } = selectSubnets("capture", placement);
  return new PipelineEndpoints(scope, "Endpoints", { vpc, vpcSubnets: { subnets } });
}

/** Lets capture through to the pipeline's endpoints, and each consumer to those of its VPC. */
export function admit(
  shared: PipelineEndpoints | undefined,
  parts: {
    readonly placement: Placement;
    readonly capture: ec2.IConnectable;
    readonly consumers: readonly {
      readonly name: string;
      readonly function: ec2.IConnectable;
      readonly redrive: { readonly function: ec2.IConnectable };
    }[];
    readonly settingsOf: (consumer: string) => ConsumerPlacement;
  },
): void {
  shared?.admit("capture", [parts.capture], selectSubnets("capture", parts.placement).subnets);
  for (const { name, function: handler, redrive } of parts.consumers) {
    const { vpc, vpcSubnets, endpoints: own } = parts.settingsOf(name);
    if (!vpc || own === "existing") continue;
    const endpoints = own ?? (shared && isSameVpc(shared.vpc, vpc) ? shared : undefined);
    const part = `consumers.${name}`;
    const isolated = new Set(vpc.isolatedSubnets.map(({ subnetId }) => subnetId));
    // Those with a NAT have their way to DynamoDB and S3, and may have gateway endpoints of their own.
    const subnets = selectSubnets(part, { vpc, vpcSubnets }).subnets.filter(({ subnetId }) =>
      isolated.has(subnetId),
    );
    endpoints?.admit(part, [handler, redrive.function], subnets);
  }
}

/**
 * Stops a synth that would make a task or a function without a way to AWS's services: it would only hang at deploy.
 * @throws ConfigurationError naming the part and the choices.
 */
function checkWayOut(part: string, placement: Placement, endpoints: Endpoints | undefined): void {
  const { vpc } = placement;
  const subnets = selectSubnets(part, placement);
  // The first synth of a VPC that is looked up knows made-up subnets: nothing can be said of them.
  if (subnets.isPendingLookup) return;
  const isConsumer = part.startsWith("consumers.");
  if (isConsumer && subnets.hasPublic)
    throw refused(
      `${part}.vpcSubnets`,
      placement.vpcSubnets && asText(placement.vpcSubnets),
      "a function has no public address, so a public subnet is no way out for it: choose private subnets, or isolated ones with endpoints",
    );
  if (endpoints === "existing") return;
  const isolated = new Set(vpc.isolatedSubnets.map((subnet) => subnet.subnetId));
  if (!subnets.subnetIds.some((id) => isolated.has(id))) return;
  const value = placement.vpcSubnets ? asText(placement.vpcSubnets) : "isolated";
  if (!endpoints)
    throw refused(
      `${part}.vpcSubnets`,
      value,
      'isolated subnets have no way to AWS\'s services: choose subnets with a NAT, or endpoints: "create" (interface and gateway endpoints are made), endpoints: new PipelineEndpoints(…) (those that pipelines share), or endpoints: "existing" if the VPC has them',
    );
}

/**
 * Stops endpoints that are of another VPC than the part which would use them.
 * @throws ConfigurationError
 */
function checkSameVpc(path: string, vpc: ec2.IVpc, endpoints: PipelineEndpoints): void {
  if (isSameVpc(vpc, endpoints.vpc)) return;
  throw refused(
    path,
    endpoints.node.path,
    `these are endpoints of the VPC ${nameOf(endpoints.vpc)}: give those of ${nameOf(vpc)}`,
  );
}

/** Returns whether both are one VPC, imported twice perhaps. */
export function isSameVpc(one: ec2.IVpc, other: ec2.IVpc): boolean {
  return one === other || identityOf(one.vpcId) === identityOf(other.vpcId);
}

function inWords(path: string, value: unknown, select: () => ec2.SelectedSubnets): ec2.SelectedSubnets {
  try {
    return select();
  } catch (error) {
    // CDK's own words say what the VPC has; they do not say which prop it is about.
    throw refused(path, value, `name subnets that the VPC has: ${(error as Error).message}`);
  }
}

function asText({ subnetType, subnetGroupName, subnets, availabilityZones }: ec2.SubnetSelection): string {
  return (
    subnetType ??
    subnetGroupName ??
    (subnets ? subnets.map(({ subnetId }) => shown(subnetId)).join(", ") : availabilityZones?.join(", ")) ??
    "a selection"
  );
}

function nameOf(vpc: ec2.IVpc): string {
  return Token.isUnresolved(vpc.vpcId) ? vpc.node.path : vpc.vpcId;
}

function shown(text: string): string {
  return Token.isUnresolved(text) ? "a subnet of the app" : text;
}

function refused(path: string, value: unknown, remedy: string): ConfigurationError {
  return new ConfigurationError("CdcPipeline", [{ path, value, remedy }]);
}
