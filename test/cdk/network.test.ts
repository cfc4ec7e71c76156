import { App, Stack } from "aws-cdk-lib";
import { Match, Template } from "aws-cdk-lib/assertions";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as ecs from "aws-cdk-lib/aws-ecs";
import { describe, expect, test } from "vitest";
import { CdcPipeline, type CdcPipelineProps, PipelineEndpoints } from "../../cdk/constructs/cdc-pipeline.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { basics, definition, findings, synthesize } from "./stacks.ts";

const env = { account: "123456789012", region: "eu-central-1" };

function stackIn(app = new App({ context: { "aws:cdk:bundling-stacks": [] } }), id = "Net"): Stack {
  return new Stack(app, id, { env });
}

/** A pipeline with a name, whose image is built elsewhere. */
function pipeline(
  stack: Stack,
  name: string,
  { vpc, ...more }: Partial<CdcPipelineProps> & { vpc: ec2.IVpc },
) {
  return new CdcPipeline(stack, name, {
    definition: definition({ name }),
    vpc,
    database: { host: "db.internal", resourceId: "db-1" },
    databaseName: "shop",
    authentication: "iam",
    capture: { image: ecs.ContainerImage.fromRegistry("capture") },
    ...more,
  });
}

function isolated(stack: Stack, ...groups: string[]): ec2.Vpc {
  return new ec2.Vpc(stack, "Isolated", {
    maxAzs: 2,
    natGateways: 0,
    subnetConfiguration: (groups.length > 0 ? groups : ["data"]).map((name) => ({
      name,
      subnetType: ec2.SubnetType.PRIVATE_ISOLATED,
    })),
  });
}

/** What the error says in one line; "taken" where there is none. */
function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof ConfigurationError) return error.message.replaceAll("\n", " ");
    throw error;
  }
  return "taken";
}

interface Endpoint {
  readonly VpcEndpointType: string;
  readonly RouteTableIds?: readonly unknown[];
  readonly SubnetIds?: readonly unknown[];
}

function endpointsOf(template: Template, type: "Gateway" | "Interface"): Endpoint[] {
  return Object.values(template.findResources("AWS::EC2::VPCEndpoint"))
    .map(({ Properties }) => Properties as Endpoint)
    .filter(({ VpcEndpointType }) => VpcEndpointType === type);
}

function ingresses(template: Template): unknown[] {
  return Object.values(template.findResources("AWS::EC2::SecurityGroupIngress")).map(
    ({ Properties }) => Properties.SourceSecurityGroupId,
  );
}

describe("two pipelines in one isolated VPC", () => {
  test("each with endpoints of its own are refused, and told the way on", () => {
    const stack = stackIn();
    const vpc = isolated(stack);
    pipeline(stack, "shop", { vpc, endpoints: "create" });
    const said = refusal(() => pipeline(stack, "billing", { vpc, endpoints: "create" }));
    expect(said).toContain("endpoints: the VPC has these endpoints already (Net/shop/Endpoints)");
    expect(said).toContain("new PipelineEndpoints(stack,");
    expect(said).toContain("other.endpoints");
    expect(said).toContain("Net/billing/Endpoints");
  });

  test("in two stacks that import the VPC, too; in two VPCs they are taken", () => {
    const app = stackIn().node.root as App;
    const imported = (stack: Stack, vpcId: string) =>
      ec2.Vpc.fromVpcAttributes(stack, "Vpc", {
        vpcId,
        availabilityZones: ["eu-central-1a"],
        isolatedSubnetIds: ["subnet-0123456789abcdef1"],
        isolatedSubnetRouteTableIds: ["rtb-0123456789abcdef1"],
      });
    const [one, two, other] = ["One", "Two", "Other"].map((id) => stackIn(app, id)) as [Stack, Stack, Stack];
    pipeline(one, "shop", { vpc: imported(one, "vpc-0123456789abcdef1"), endpoints: "create" });
    pipeline(other, "shop", { vpc: imported(other, "vpc-0123456789abcdef2"), endpoints: "create" });
    expect(
      refusal(() =>
        pipeline(two, "billing", { vpc: imported(two, "vpc-0123456789abcdef1"), endpoints: "create" }),
      ),
    ).toContain("One/shop/Endpoints");
  });

  test("share endpoints of their own construct: each service once, all of both let in, tasks after it", () => {
    const stack = stackIn();
    const vpc = isolated(stack);
    const endpoints = new PipelineEndpoints(stack, "Shared", { vpc });
    const consumers = { notifications: { vpc } };
    const shop = pipeline(stack, "shop", { vpc, endpoints, consumers });
    pipeline(stack, "billing", { vpc, endpoints });
    expect(shop.endpoints).toBe(endpoints);
    const template = Template.fromStack(stack);
    expect(endpointsOf(template, "Interface")).toHaveLength(6);
    expect(endpointsOf(template, "Gateway")).toHaveLength(2);
    // Two capture tasks, a consumer and its redrive.
    expect(new Set(ingresses(template).map((group) => JSON.stringify(group))).size).toBe(4);
    const made = Object.keys(template.findResources("AWS::EC2::VPCEndpoint"));
    for (const { DependsOn } of Object.values(template.findResources("AWS::ECS::Service")))
      expect(DependsOn).toEqual(expect.arrayContaining(made));
  });

  test("the second takes the first one's: nothing that stands is replaced", () => {
    const alone = stackIn();
    pipeline(alone, "shop", { vpc: isolated(alone), endpoints: "create" });
    const stack = stackIn();
    const vpc = isolated(stack);
    const { endpoints } = pipeline(stack, "shop", { vpc, endpoints: "create" });
    if (!endpoints) throw new Error("endpoints expected");
    pipeline(stack, "billing", { vpc, endpoints });
    const both = Template.fromStack(stack).findResources("AWS::EC2::VPCEndpoint");
    expect(both).toEqual(Template.fromStack(alone).findResources("AWS::EC2::VPCEndpoint"));
  });

  test("endpoints, VPC and pipelines in stacks of their own: no stack waits for itself", () => {
    const network = stackIn();
    const app = network.node.root as App;
    const vpc = isolated(network, "data", "functions");
    const endpoints = new PipelineEndpoints(network, "Shared", {
      vpc,
      vpcSubnets: { subnetGroupName: "data" },
    });
    const [shop, billing] = ["Shop", "Billing"].map((id) => stackIn(app, id)) as [Stack, Stack];
    const vpcSubnets = { subnetGroupName: "data" };
    const consumers = { notifications: { vpc, vpcSubnets: { subnetGroupName: "functions" } } };
    pipeline(shop, "shop", { vpc, vpcSubnets, endpoints, consumers });
    pipeline(billing, "billing", { vpc, vpcSubnets, endpoints });
    app.synth();
    const template = Template.fromStack(network);
    expect(ingresses(template)).toEqual([]);
    expect(ingresses(Template.fromStack(shop))).toHaveLength(3);
    expect(ingresses(Template.fromStack(billing))).toHaveLength(1);
    for (const { RouteTableIds } of endpointsOf(template, "Gateway")) expect(RouteTableIds).toHaveLength(4);
  });
});

describe("endpoints", () => {
  test("consumers in other subnets than capture keep their way to DynamoDB and S3", () => {
    const stack = stackIn();
    const vpc = isolated(stack, "data", "functions", "others");
    const consumers = { notifications: { vpc, vpcSubnets: { subnetGroupName: "functions" } } };
    pipeline(stack, "shop", { vpc, vpcSubnets: { subnetGroupName: "data" }, endpoints: "create", consumers });
    const template = Template.fromStack(stack);
    const wanted = ["data", "functions"].flatMap((subnetGroupName) =>
      vpc
        .selectSubnets({ subnetGroupName })
        .subnets.map(({ routeTable }) => stack.resolve(routeTable.routeTableId)),
    );
    const gateways = endpointsOf(template, "Gateway");
    expect(gateways).toHaveLength(2);
    for (const { RouteTableIds } of gateways) expect(RouteTableIds).toEqual(wanted);
  });

  test("an interface endpoint stands in one subnet of a zone", () => {
    const stack = stackIn();
    const vpc = ec2.Vpc.fromVpcAttributes(stack, "Vpc", {
      vpcId: "vpc-0123456789abcdef1",
      availabilityZones: ["eu-central-1a", "eu-central-1b"],
      isolatedSubnetIds: [
        "subnet-0123456789abcdef1",
        "subnet-0123456789abcdef2",
        "subnet-0123456789abcdef3",
        "subnet-0123456789abcdef4",
      ],
      isolatedSubnetNames: ["one", "two"],
      isolatedSubnetRouteTableIds: [
        "rtb-0123456789abcdef1",
        "rtb-0123456789abcdef2",
        "rtb-0123456789abcdef3",
        "rtb-0123456789abcdef3",
      ],
    });
    pipeline(stack, "shop", { vpc, endpoints: "create" });
    const template = Template.fromStack(stack);
    for (const { SubnetIds } of endpointsOf(template, "Interface"))
      expect(SubnetIds).toEqual(["subnet-0123456789abcdef1", "subnet-0123456789abcdef2"]);
    // And each route table is named once.
    for (const { RouteTableIds } of endpointsOf(template, "Gateway"))
      expect(RouteTableIds).toEqual([
        "rtb-0123456789abcdef1",
        "rtb-0123456789abcdef2",
        "rtb-0123456789abcdef3",
      ]);
  });

  test("whoever else is in the VPC is not cut off from the services whose names lead to them", () => {
    const admitted = (natGateways: number) => {
      const stack = synthesize((made) => {
        const vpc = new ec2.Vpc(made, "Mixed", {
          maxAzs: 2,
          natGateways,
          subnetConfiguration: [
            { name: "data", subnetType: ec2.SubnetType.PRIVATE_ISOLATED },
            ...(natGateways > 0
              ? [
                  { name: "apps", subnetType: ec2.SubnetType.PRIVATE_WITH_EGRESS },
                  { name: "front", subnetType: ec2.SubnetType.PUBLIC, mapPublicIpOnLaunch: false },
                ]
              : []),
          ],
        });
        vpc.addFlowLog("Flow");
        const vpcSubnets = { subnetGroupName: "data" };
        return { ...basics(made), definition: definition(), vpc, vpcSubnets, endpoints: "create" };
      });
      expect(findings(stack)).toEqual([]);
      const [group] = Object.entries(stack.template.findResources("AWS::EC2::SecurityGroup")).flatMap(
        ([id, { Properties }]) => (id.includes("Endpoints") ? [Properties] : []),
      );
      return group?.SecurityGroupIngress;
    };
    expect(admitted(0)).toBeUndefined();
    expect(admitted(1)).toMatchObject([{ CidrIp: { "Fn::GetAtt": [expect.any(String), "CidrBlock"] } }]);
  });

  test("an endpoint of the app that has the names already is found before the deploy", () => {
    const made = (privateDnsEnabled: boolean) => {
      const stack = stackIn();
      const vpc = isolated(stack);
      vpc.addInterfaceEndpoint("Queues", {
        service: ec2.InterfaceVpcEndpointAwsService.SQS,
        privateDnsEnabled,
      });
      return refusal(() => pipeline(stack, "shop", { vpc, endpoints: "create" }));
    };
    expect(made(true)).toMatch(/endpoints: .*private DNS already \(Net\/Isolated\/Queues/);
    expect(made(false)).toBe("taken");
  });

  test("a route table that leads to DynamoDB or S3 already gets no second route", () => {
    const routes = (add: (vpc: ec2.Vpc) => void) => {
      const stack = stackIn();
      const vpc = isolated(stack);
      pipeline(stack, "shop", { vpc, endpoints: "create" });
      add(vpc);
      const made = Template.fromStack(stack).findResources("AWS::EC2::VPCEndpoint");
      return Object.entries(made).flatMap(([id, { Properties }]) =>
        Properties.VpcEndpointType === "Gateway"
          ? ((Properties.RouteTableIds ?? []) as unknown[]).map(
              (table) => `${/DynamoDB|S3/.exec(id)} ${JSON.stringify(table)}`,
            )
          : [],
      );
    };
    const alone = routes(() => {});
    expect(alone).toHaveLength(4);
    const beside = routes((vpc) => {
      vpc.addGatewayEndpoint("S3", { service: ec2.GatewayVpcEndpointAwsService.S3 });
    });
    expect(beside.toSorted()).toEqual(alone.toSorted());
    const partly = routes((vpc) => {
      vpc.addGatewayEndpoint("S3", {
        service: ec2.GatewayVpcEndpointAwsService.S3,
        subnets: [{ availabilityZones: vpc.availabilityZones.slice(0, 1) }],
      });
    });
    expect(partly.toSorted()).toEqual(alone.toSorted());
  });

  test("of another VPC are refused, for the pipeline and for a consumer", () => {
    const stack = stackIn();
    const vpc = isolated(stack);
    const other = new ec2.Vpc(stack, "Other", {
      maxAzs: 1,
      natGateways: 0,
      subnetConfiguration: [{ name: "sink", subnetType: ec2.SubnetType.PRIVATE_ISOLATED }],
    });
    const endpoints = new PipelineEndpoints(stack, "OfOther", { vpc: other });
    expect(refusal(() => pipeline(stack, "a", { vpc, endpoints }))).toMatch(
      /endpoints: these are endpoints of the VPC Net\/Other: give those of Net\/Isolated.*Net\/OfOther/,
    );
    const inOther = (more: object) => ({ notifications: { vpc: other, ...more } });
    expect(refusal(() => pipeline(stack, "b", { vpc, endpoints: "create", consumers: inOther({}) }))).toMatch(
      /consumers\.notifications\.vpcSubnets: isolated subnets have no way/,
    );
    const given = pipeline(stack, "c", {
      vpc,
      endpoints: "existing",
      consumers: inOther({ endpoints }),
    });
    expect(given.endpoints).toBeUndefined();
    // The consumer and its redrive, in the other VPC.
    expect(ingresses(Template.fromStack(stack))).toHaveLength(2);
    const wrong = stackIn();
    const theirs = isolated(wrong);
    const own = new PipelineEndpoints(wrong, "Own", { vpc: theirs });
    const nat = new ec2.Vpc(wrong, "Nat", { maxAzs: 1 });
    expect(
      refusal(() =>
        pipeline(wrong, "d", {
          vpc: theirs,
          endpoints: own,
          consumers: { notifications: { vpc: nat, endpoints: own } },
        }),
      ),
    ).toMatch(/consumers\.notifications\.endpoints: these are endpoints of the VPC Net\/Isolated/);
  });
});

describe("imported VPCs", () => {
  const attributes = {
    vpcId: "vpc-0123456789abcdef1",
    availabilityZones: ["eu-central-1a"],
    isolatedSubnetIds: ["subnet-0123456789abcdef1"],
  };

  test("without route tables: no endpoints can be made, and the error says what is missing", () => {
    const stack = stackIn();
    const vpc = ec2.Vpc.fromVpcAttributes(stack, "Vpc", attributes);
    expect(refusal(() => pipeline(stack, "shop", { vpc, endpoints: "create" }))).toMatch(
      /vpcSubnets: the route table of this subnet is not known.*isolatedSubnetRouteTableIds.*endpoints: "existing".*subnet-0123456789abcdef1/,
    );
    expect(refusal(() => pipeline(stack, "billing", { vpc, endpoints: "existing" }))).toBe("taken");
  });

  test("the same of a consumer's subnets", () => {
    const stack = stackIn();
    const vpc = ec2.Vpc.fromVpcAttributes(stack, "Vpc", {
      ...attributes,
      availabilityZones: ["eu-central-1a", "eu-central-1b"],
      isolatedSubnetIds: ["subnet-0123456789abcdef1", "subnet-0123456789abcdef2"],
      isolatedSubnetRouteTableIds: ["rtb-0123456789abcdef1", ""],
    });
    const [first, second] = vpc.isolatedSubnets as [ec2.ISubnet, ec2.ISubnet];
    expect(
      refusal(() =>
        pipeline(stack, "shop", {
          vpc,
          vpcSubnets: { subnets: [first] },
          endpoints: "create",
          consumers: { notifications: { vpc, vpcSubnets: { subnets: [second] } } },
        }),
      ),
    ).toMatch(
      /consumers\.notifications\.vpcSubnets: the route table of this subnet is not known.*subnet-0123456789abcdef2/,
    );
  });

  test("without subnets", () => {
    const stack = stackIn();
    const vpc = ec2.Vpc.fromVpcAttributes(stack, "Vpc", {
      vpcId: "vpc-0123456789abcdef1",
      availabilityZones: ["eu-central-1a"],
    });
    expect(refusal(() => pipeline(stack, "shop", { vpc }))).toMatch(
      /capture\.vpcSubnets: the VPC vpc-0123456789abcdef1 is known without its subnets: .*fromLookup.*privateSubnetIds/,
    );
    expect(refusal(() => new PipelineEndpoints(stack, "Endpoints", { vpc }))).toMatch(
      /vpcSubnets: .*imported/,
    );
  });

  test("with another way out, whose addresses are not known: they would be cut off", () => {
    const stack = stackIn();
    const vpc = ec2.Vpc.fromVpcAttributes(stack, "Vpc", {
      ...attributes,
      isolatedSubnetRouteTableIds: ["rtb-0123456789abcdef1"],
      privateSubnetIds: ["subnet-0123456789abcdef9"],
    });
    const vpcSubnets = { subnetType: ec2.SubnetType.PRIVATE_ISOLATED };
    expect(refusal(() => pipeline(stack, "shop", { vpc, vpcSubnets, endpoints: "create" }))).toMatch(
      /endpoints: .*allowFrom.*vpcCidrBlock.*vpc-0123456789abcdef1/,
    );
    const endpoints = new PipelineEndpoints(stack, "Shared", {
      vpc,
      allowFrom: [ec2.Peer.ipv4("10.0.0.0/16")],
    });
    expect(refusal(() => pipeline(stack, "billing", { vpc, vpcSubnets, endpoints }))).toBe("taken");
  });

  test("looked up: the first synth, which knows nothing yet, gets through", () => {
    const stack = stackIn();
    const vpc = ec2.Vpc.fromLookup(stack, "Vpc", { vpcId: "vpc-0123456789abcdef1" });
    const vpcSubnets = { subnetType: ec2.SubnetType.PRIVATE_ISOLATED };
    expect(refusal(() => pipeline(stack, "shop", { vpc }))).toBe("taken");
    expect(refusal(() => pipeline(stack, "billing", { vpc, vpcSubnets, endpoints: "create" }))).toBe("taken");
  });
});

describe("subnets", () => {
  const publicOnly = (stack: Stack) =>
    new ec2.Vpc(stack, "Public", {
      maxAzs: 2,
      natGateways: 0,
      subnetConfiguration: [{ name: "front", subnetType: ec2.SubnetType.PUBLIC }],
    });

  test("public ones are taken only where they are named: then the task has a public address", () => {
    const stack = stackIn();
    const vpc = publicOnly(stack);
    expect(refusal(() => pipeline(stack, "shop", { vpc }))).toMatch(
      /capture\.vpcSubnets: the VPC Net\/Public has public subnets alone.*subnetType: ec2\.SubnetType\.PUBLIC/,
    );
    const named = stackIn();
    pipeline(named, "shop", { vpc: publicOnly(named), vpcSubnets: { subnetType: ec2.SubnetType.PUBLIC } });
    Template.fromStack(named).hasResourceProperties("AWS::ECS::Service", {
      NetworkConfiguration: { AwsvpcConfiguration: { AssignPublicIp: "ENABLED" } },
    });
  });

  test("a selection by zone alone names no public ones", () => {
    const stack = stackIn();
    const vpc = publicOnly(stack);
    for (const [name, vpcSubnets] of Object.entries({
      zone: { availabilityZones: vpc.availabilityZones.slice(0, 1) },
      each: { onePerAz: true },
      none: {},
    }))
      expect(refusal(() => pipeline(stack, name, { vpc, vpcSubnets }))).toMatch(
        /capture\.vpcSubnets: the VPC Net\/Public has public subnets alone/,
      );
    const mixed = stackIn();
    const both = new ec2.Vpc(mixed, "Both", { maxAzs: 2, natGateways: 1 });
    pipeline(mixed, "shop", {
      vpc: both,
      vpcSubnets: { availabilityZones: both.availabilityZones.slice(0, 1) },
    });
    Template.fromStack(mixed).hasResourceProperties("AWS::ECS::Service", {
      NetworkConfiguration: {
        AwsvpcConfiguration: {
          AssignPublicIp: "DISABLED",
          Subnets: [{ Ref: Match.stringLikeRegexp("PrivateSubnet1") }],
        },
      },
    });
  });

  test("a function is never put into a public one: it would have no way out", () => {
    const stack = stackIn();
    const vpc = new ec2.Vpc(stack, "Vpc", { maxAzs: 1 });
    const vpcSubnets = { subnetType: ec2.SubnetType.PUBLIC };
    for (const endpoints of [undefined, "existing" as const])
      expect(
        refusal(() =>
          pipeline(stack, endpoints ?? "shop", {
            vpc,
            ...(endpoints && { endpoints }),
            consumers: { notifications: { vpc, vpcSubnets } },
          }),
        ),
      ).toMatch(/consumers\.notifications\.vpcSubnets: a function has no public address.*Public/);
  });

  test("that are not there: the error names prop and value", () => {
    const stack = stackIn();
    const vpc = isolated(stack);
    expect(refusal(() => pipeline(stack, "a", { vpc, vpcSubnets: { subnetGroupName: "db" } }))).toMatch(
      /capture\.vpcSubnets: name subnets that the VPC has: .*data.*"db"/,
    );
    const consumers = { notifications: { vpc, vpcSubnets: { subnetType: ec2.SubnetType.PUBLIC } } };
    expect(refusal(() => pipeline(stack, "b", { vpc, endpoints: "existing", consumers }))).toMatch(
      /consumers\.notifications\.vpcSubnets: name subnets that the VPC has/,
    );
  });
});
