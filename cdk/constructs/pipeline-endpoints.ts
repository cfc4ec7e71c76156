import { Lazy, Reference, Stack, Token, Tokenization } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import { Construct, type IConstruct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { acknowledge } from "./nag.ts";

/** Props of `PipelineEndpoints`. */
export interface PipelineEndpointsProps {
  readonly vpc: ec2.IVpc;
  /** Subnets that the interface endpoints stand in, one in each zone. Default: the isolated ones, else the private ones. */
  readonly vpcSubnets?: ec2.SubnetSelection;
  /**
   * Who may use the interface endpoints beside the pipelines that are given them. With them, all of the VPC reaches these services
   * through them alone. Default: nobody where the VPC has isolated subnets only, else all of its addresses.
   */
  readonly allowFrom?: readonly ec2.IPeer[];
}

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

/** https://docs.aws.amazon.com/vpc/latest/privatelink/gateway-endpoints.html */
const GATEWAY_ENDPOINTS: Readonly<Record<string, ec2.GatewayVpcEndpointAwsService>> = {
  DynamoDB: ec2.GatewayVpcEndpointAwsService.DYNAMODB,
  S3: ec2.GatewayVpcEndpointAwsService.S3,
};

/**
 * The endpoints of AWS's services that pipelines need in isolated subnets, for all the pipelines of a VPC: a VPC can have one interface
 * endpoint with private DNS for a service, and a route table one gateway endpoint.
 *
 * @example
 * const endpoints = new PipelineEndpoints(stack, "Endpoints", { vpc });
 * new CdcPipeline(stack, "Shop", { vpc, endpoints, … });
 * new CdcPipeline(stack, "Billing", { vpc, endpoints, … });
 */
export class PipelineEndpoints extends Construct {
  readonly vpc: ec2.IVpc;
  readonly securityGroup: ec2.SecurityGroup;
  readonly #routeTables = new Set<string>();
  readonly #interfaces: readonly ec2.InterfaceVpcEndpoint[];

  /** @throws ConfigurationError where the app has such an endpoint in the VPC already, or route tables are not known. */
  constructor(scope: Construct, id: string, props: PipelineEndpointsProps) {
    super(scope, id);
    const { vpc } = props;
    this.vpc = vpc;
    const subnets = subnetsOf(props);
    this.#addRoutes("vpcSubnets", subnets);
    // Routes are added as pipelines come: https://docs.aws.amazon.com/vpc/latest/privatelink/gateway-endpoints.html
    for (const [name, service] of Object.entries(GATEWAY_ENDPOINTS)) {
      const gateway = new ec2.GatewayVpcEndpoint(this, name, { vpc, service, subnets: [{ subnets }] });
      const resource = gateway.node.defaultChild as ec2.CfnVPCEndpoint;
      resource.routeTableIds = Lazy.list(
        { produce: () => [...this.#routeTables].filter((id) => !hasRoute(id, resource)) },
        { omitEmpty: true },
      );
    }
    this.securityGroup = new ec2.SecurityGroup(this, "SecurityGroup", {
      vpc,
      description: "Endpoints of AWS services",
      allowAllOutbound: false,
    });
    for (const peer of props.allowFrom ?? this.#neighbours())
      this.securityGroup.addIngressRule(peer, ec2.Port.HTTPS, "AWS services");
    this.#interfaces = Object.entries(INTERFACE_ENDPOINTS).map(
      ([name, service]) =>
        new ec2.InterfaceVpcEndpoint(this, name, {
          vpc,
          service,
          // A second subnet of a zone is refused: https://docs.aws.amazon.com/vpc/latest/privatelink/create-interface-endpoint.html
          subnets: { subnets: onePerZone(subnets) },
          securityGroups: [this.securityGroup],
          open: false,
        }),
    );
    this.#checkAlone();
  }

  /**
   * Lets a part of a pipeline in, and gives the route tables of its subnets their way to DynamoDB and S3; `part` is its place in
   * the props.
   * @throws ConfigurationError where a subnet's route table is not known.
   */
  admit(part: string, clients: readonly ec2.IConnectable[], subnets: readonly ec2.ISubnet[]): void {
    for (const { connections } of clients) {
      // As a remote rule it stands in the client's stack: the client's stack comes after this one.
      for (const group of connections.securityGroups)
        this.securityGroup.addIngressRule(group, ec2.Port.HTTPS, "AWS services", true);
    }
    this.#addRoutes(`${part}.vpcSubnets`, subnets);
  }

  #addRoutes(path: string, subnets: readonly ec2.ISubnet[]): void {
    for (const subnet of subnets) {
      const id: string | undefined = subnet.routeTable?.routeTableId;
      if (!id) {
        throw refused(
          path,
          Token.isUnresolved(subnet.subnetId) ? subnet.node.path : subnet.subnetId,
          'the route table of this subnet is not known, and the gateway endpoints of DynamoDB and S3 are bound to route tables: import the VPC by Vpc.fromLookup, or give isolatedSubnetRouteTableIds (privateSubnetRouteTableIds) to Vpc.fromVpcAttributes (routeTableId to Subnet.fromSubnetAttributes); or make the endpoints elsewhere and give endpoints: "existing"',
        );
      }
      this.#routeTables.add(id);
    }
  }

  /** Others of the VPC that reach these services by a NAT until the endpoints' names lead them here. */
  #neighbours(): ec2.IPeer[] {
    const { vpc } = this;
    if (vpc.privateSubnets.length === 0 && vpc.publicSubnets.length === 0) return [];
    try {
      const peer = ec2.Peer.ipv4(vpc.vpcCidrBlock);
      for (const rule of ["AwsSolutions-EC23", "CdkNagValidationFailure"]) {
        acknowledge(
          this.securityGroup,
          rule,
          "The addresses of a VPC that this app makes are known at deployment: they are the VPC's own, and port 443 alone is open to them.",
        );
      }
      return [peer];
    } catch {
      throw refused(
        "endpoints",
        Token.isUnresolved(vpc.vpcId) ? vpc.node.path : vpc.vpcId,
        "the VPC has subnets with another way out, and private DNS sends all of it to the endpoints: say who may use them by allowFrom of PipelineEndpoints, or give vpcCidrBlock to Vpc.fromVpcAttributes",
      );
    }
  }

  /** Private DNS names of one service can stand in a VPC once: a second endpoint fails the deploy. */
  #checkAlone(): void {
    const root = this.node.root;
    const all = root.node.findAll().filter((one) => one instanceof ec2.CfnVPCEndpoint);
    for (const [at, mine] of this.#interfaces.entries()) {
      const own = mine.node.defaultChild as ec2.CfnVPCEndpoint;
      const twin = all.find((other) => other !== own && clash(own, other));
      if (!twin) continue;
      const holder = twin.node.scopes.find((one) => one instanceof PipelineEndpoints);
      const service = Object.keys(INTERFACE_ENDPOINTS)[at];
      throw refused(
        "endpoints",
        `${this.node.path}/${service}`,
        holder
          ? `the VPC has these endpoints already (${holder.node.path}), and can have them once: give both pipelines one, endpoints: new PipelineEndpoints(stack, "Endpoints", { vpc }), or give this one those of the other pipeline, endpoints: other.endpoints`
          : `the VPC has an endpoint of this service with private DNS already (${twin.node.path}), and can have it once: leave it out there, or make the others too and give endpoints: "existing"`,
      );
    }
  }
}

/**
 * Tells whether a route table leads to the service by another endpoint of the app, as those of `gatewayEndpoints` of a VPC do: a second route
 * fails the deploy. https://docs.aws.amazon.com/vpc/latest/privatelink/gateway-endpoints.html
 */
function hasRoute(routeTable: string, own: ec2.CfnVPCEndpoint): boolean {
  const others = own.node.root.node
    .findAll()
    .filter((one) => one instanceof ec2.CfnVPCEndpoint)
    .filter((one) => one !== own && one.vpcEndpointType === own.vpcEndpointType)
    .filter((one) => serviceOf(one) === serviceOf(own));
  return others.some(
    ({ routeTableIds: ids = [] }) =>
      !Token.isUnresolved(ids) && ids.some((id) => identityOf(id) === identityOf(routeTable)),
  );
}

function serviceOf(endpoint: ec2.CfnVPCEndpoint): string {
  return JSON.stringify(Stack.of(endpoint).resolve(endpoint.serviceName));
}

function clash(own: ec2.CfnVPCEndpoint, other: ec2.CfnVPCEndpoint): boolean {
  return (
    other.vpcEndpointType === own.vpcEndpointType &&
    other.privateDnsEnabled !== false &&
    identityOf(other.vpcId) === identityOf(own.vpcId) &&
    serviceOf(other) === serviceOf(own)
  );
}

/** Returns what two names of one resource have in common: the construct it is made by, or its id. */
export function identityOf(id: string): IConstruct | string {
  if (!Token.isUnresolved(id)) return id;
  const token = Tokenization.reverseCompleteString(id);
  return Reference.isReference(token) ? token.target : id;
}

function subnetsOf({ vpc, vpcSubnets }: PipelineEndpointsProps): ec2.ISubnet[] {
  if (vpcSubnets) return vpc.selectSubnets(vpcSubnets).subnets;
  const subnets = vpc.isolatedSubnets.length > 0 ? vpc.isolatedSubnets : vpc.privateSubnets;
  if (subnets.length > 0) return subnets;
  throw refused(
    "vpcSubnets",
    undefined,
    "the VPC has no isolated and no private subnets (or was imported without them): name the subnets of the endpoints",
  );
}

function onePerZone(subnets: readonly ec2.ISubnet[]): ec2.ISubnet[] {
  const byZone = new Map<string, ec2.ISubnet>();
  for (const subnet of subnets)
    if (!byZone.has(subnet.availabilityZone)) byZone.set(subnet.availabilityZone, subnet);
  return [...byZone.values()];
}

function refused(path: string, value: unknown, remedy: string): ConfigurationError {
  return new ConfigurationError("PipelineEndpoints", [{ path, value, remedy }]);
}
