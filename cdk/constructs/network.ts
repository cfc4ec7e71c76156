import * as ec2 from "aws-cdk-lib/aws-ec2";
import { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";

/** VPC and subnets of a part. */
export interface Placement {
  readonly vpc: ec2.IVpc;
  /** Default: private subnets with a way out, else isolated ones, else public ones. */
  readonly vpcSubnets?: ec2.SubnetSelection;
}

/**
 * The way to AWS's services out of isolated subnets. `create`: interface and gateway endpoints are made (in this
 * app; they cost by the hour). `existing`: the VPC has them, or another way out. Left out: there must be a NAT.
 */
export type Endpoints = "create" | "existing";

/** Services that the capture task calls beside PostgreSQL, DynamoDB and S3. */
const INTERFACE_ENDPOINTS: Readonly<Record<string, ec2.InterfaceVpcEndpointAwsService>> = {
  Kinesis: ec2.InterfaceVpcEndpointAwsService.KINESIS_STREAMS,
  Logs: ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
  EcrApi: ec2.InterfaceVpcEndpointAwsService.ECR,
  EcrDocker: ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
  SecretsManager: ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
  // Consumers in the VPC too: for dead letters.
  Sqs: ec2.InterfaceVpcEndpointAwsService.SQS,
};

/** The subnets that a placement chooses. */
export function selectSubnets({ vpc, vpcSubnets }: Placement): ec2.SelectedSubnets {
  if (vpcSubnets) return vpc.selectSubnets(vpcSubnets);
  if (vpc.privateSubnets.length > 0)
    return vpc.selectSubnets({ subnetType: ec2.SubnetType.PRIVATE_WITH_EGRESS });
  if (vpc.isolatedSubnets.length > 0)
    return vpc.selectSubnets({ subnetType: ec2.SubnetType.PRIVATE_ISOLATED });
  return vpc.selectSubnets({ subnetType: ec2.SubnetType.PUBLIC });
}

/**
 * Stops a synth that would make a task without a way to Kinesis: it would only hang at deploy.
 * @throws ConfigurationError naming the part and the choices.
 */
export function checkWayOut(part: string, placement: Placement, endpoints: Endpoints | undefined): void {
  if (endpoints) return;
  const isolated = new Set(placement.vpc.isolatedSubnets.map((subnet) => subnet.subnetId));
  const chosen = selectSubnets(placement).subnetIds.filter((id) => isolated.has(id));
  if (chosen.length === 0) return;
  throw new ConfigurationError("CdcPipeline", [
    {
      path: `${part}.vpcSubnets`,
      value: placement.vpcSubnets?.subnetType ?? "isolated",
      remedy:
        'isolated subnets have no way to AWS\'s services: choose subnets with a NAT, or endpoints: "create" (interface and gateway endpoints are made), or endpoints: "existing" if the VPC has them',
    },
  ]);
}

/** Makes the endpoints that capture task and consumers need in their subnets; only they get in. */
export function addEndpoints(
  parent: Construct,
  placement: Placement,
  capture: ec2.IConnectable,
  consumers: readonly ec2.IConnectable[],
): Construct {
  const scope = new Construct(parent, "Endpoints");
  const subnets = selectSubnets(placement).subnets;
  const { vpc } = placement;
  const gateways = {
    DynamoDB: ec2.GatewayVpcEndpointAwsService.DYNAMODB,
    S3: ec2.GatewayVpcEndpointAwsService.S3,
  };
  for (const [name, service] of Object.entries(gateways)) {
    new ec2.GatewayVpcEndpoint(scope, name, { vpc, service, subnets: [{ subnets }] });
  }
  const securityGroup = new ec2.SecurityGroup(scope, "SecurityGroup", {
    vpc,
    description: "Endpoints of AWS services",
    allowAllOutbound: false,
  });
  for (const client of [capture, ...consumers]) {
    securityGroup.connections.allowFrom(client, ec2.Port.HTTPS, "AWS services");
  }
  for (const [name, service] of Object.entries(INTERFACE_ENDPOINTS)) {
    new ec2.InterfaceVpcEndpoint(scope, name, {
      vpc,
      service,
      subnets: { subnets },
      securityGroups: [securityGroup],
      open: false,
    });
  }
  return scope;
}
