import { App, Stack, type StackProps } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as rds from "aws-cdk-lib/aws-rds";
import * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import { beforeAll, describe, expect, test } from "vitest";
import { CdcPipeline, type CdcPipelineProps } from "../../cdk/constructs/cdc-pipeline.ts";
import { definition, resource } from "./stacks.ts";

/*
 * Where changes are captured, as an app has it: an Aurora cluster or an instance of its own, in another stack, or imported.
 */

const env: StackProps = { env: { account: "123456789012", region: "eu-central-1" } };

/** A stack with a pipeline on a database that another stack of the app has. */
function onDatabase(
  make: (data: Stack, vpc: ec2.Vpc) => rds.DatabaseCluster | rds.DatabaseInstance,
  props: (data: Stack) => Partial<CdcPipelineProps>,
) {
  const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
  const data = new Stack(app, "Data", env);
  const vpc = new ec2.Vpc(data, "Vpc", { maxAzs: 2, natGateways: 1 });
  const database = make(data, vpc);
  const stack = new Stack(app, "Shop", env);
  new CdcPipeline(stack, "Pipeline", {
    definition: definition(),
    vpc,
    database,
    databaseName: "shop",
    ...props(data),
  });
  return {
    data,
    database,
    shop: { template: Template.fromStack(stack) },
    dataTemplate: Template.fromStack(data),
  };
}

type Shop = ReturnType<typeof onDatabase>["shop"];

function environment(shop: Shop): Record<string, unknown> {
  const [container] = resource(shop, "AWS::ECS::TaskDefinition").Properties.ContainerDefinitions as {
    Environment: { Name: string; Value: unknown }[];
  }[];
  return Object.fromEntries((container?.Environment ?? []).map(({ Name, Value }) => [Name, Value]));
}

/** What the capture task may do at the database: the resources of one action, as text. */
function permitted(shop: Shop, action: string): string[] {
  const { PolicyDocument } = resource(shop, "AWS::IAM::Policy", "CaptureTaskTaskRole").Properties as {
    PolicyDocument: { Statement: { Action: string | string[]; Resource: unknown }[] };
  };
  return PolicyDocument.Statement.filter(({ Action }) => [Action].flat().includes(action)).map(
    ({ Resource }) => JSON.stringify(Resource),
  );
}

/** Every text of a template in which a number stands for a reference that nobody put in. */
const LOST_NUMBER = /-?1\.888\d+e\+289/i;

const aurora = (data: Stack, vpc: ec2.Vpc) =>
  new rds.DatabaseCluster(data, "Aurora", {
    engine: rds.DatabaseClusterEngine.auroraPostgres({ version: rds.AuroraPostgresEngineVersion.VER_16_8 }),
    writer: rds.ClusterInstance.serverlessV2("Writer"),
    readers: [rds.ClusterInstance.serverlessV2("Reader", { scaleWithWriter: true })],
    vpc,
    iamAuthentication: true,
    port: 5433,
  });

describe("an Aurora cluster of another stack, by IAM tokens", () => {
  let made: ReturnType<typeof onDatabase>;
  let shop: Shop;
  beforeAll(() => {
    made = onDatabase(aurora, () => ({ authentication: "iam", databaseUser: "capture" }));
    shop = made.shop;
  });

  test("the writer's endpoint, not the readers'", () => {
    const { PGHOST, PGPORT, PGUSER, TRIBUTARY_TLS, TRIBUTARY_TLS_CA_FILE } = environment(shop);
    expect(JSON.stringify(PGHOST)).toMatch(/AuroraE?[^"]*EndpointAddress/);
    expect(JSON.stringify(PGHOST)).not.toMatch(/ReadEndpoint/);
    expect(JSON.stringify(PGPORT)).toMatch(/AuroraE?[^"]*EndpointPort/);
    expect({ PGUSER, TRIBUTARY_TLS, TRIBUTARY_TLS_CA_FILE }).toEqual({
      PGUSER: "capture",
      TRIBUTARY_TLS: "verify-full",
      TRIBUTARY_TLS_CA_FILE: "/app/authorities/rds-global-bundle.pem",
    });
    expect(JSON.stringify(shop.template.toJSON())).not.toMatch(LOST_NUMBER);
  });

  test("rds-db:connect for that role on that cluster's resource id, and nothing wider", () => {
    const resources = permitted(shop, "rds-db:connect");
    expect(resources).toHaveLength(1);
    expect(resources[0]).toContain(":rds-db:eu-central-1:123456789012:dbuser:");
    expect(resources[0]).toMatch(/Aurora[^"]*DBClusterResourceId/);
    expect(resources[0]).toMatch(/\/capture"/);
    expect(resources[0]).not.toContain("*");
  });

  test("the capture task's group is let in at the cluster's port, by a rule of the pipeline's own stack", () => {
    const rules = Object.values(shop.template.findResources("AWS::EC2::SecurityGroupIngress"));
    expect(rules).toHaveLength(1);
    const { GroupId, SourceSecurityGroupId, FromPort, ToPort } = rules[0]?.Properties ?? {};
    expect(JSON.stringify(GroupId)).toMatch(/AuroraSecurityGroup/);
    expect(SourceSecurityGroupId).toEqual({
      "Fn::GetAtt": [resource(shop, "AWS::EC2::SecurityGroup").id, "GroupId"],
    });
    for (const port of [FromPort, ToPort]) expect(JSON.stringify(port)).toMatch(/EndpointPort/);
    // The database's stack stays as it is: it knows nothing of the pipeline.
    expect(JSON.stringify(made.dataTemplate.toJSON())).not.toMatch(/Shop:|Pipeline/);
  });

  test("RDS's own alarm looks at the cluster's writer", () => {
    const { Dimensions, TreatMissingData } = resource(
      shop,
      "AWS::CloudWatch::Alarm",
      "OldestReplicationSlotLag",
    ).Properties as { Dimensions: { Name: string; Value: unknown }[]; TreatMissingData: string };
    expect(Dimensions.map(({ Name }) => Name).sort()).toEqual(["DBClusterIdentifier", "Role"]);
    expect(Dimensions).toContainEqual({ Name: "Role", Value: "WRITER" });
    expect(TreatMissingData).toBe("notBreaching");
  });
});

test("an instance of another stack: its endpoint, its resource id, a rule of our own stack", () => {
  const { shop, dataTemplate } = onDatabase(
    (data, vpc) =>
      new rds.DatabaseInstance(data, "Instance", {
        engine: rds.DatabaseInstanceEngine.postgres({ version: rds.PostgresEngineVersion.VER_17 }),
        storageEncrypted: true,
        vpc,
        iamAuthentication: true,
      }),
    () => ({ authentication: "iam" }),
  );
  const { PGHOST, PGPORT, PGUSER } = environment(shop);
  expect(JSON.stringify([PGHOST, PGPORT])).toMatch(/EndpointAddress.*EndpointPort/);
  expect(PGUSER).toBe("tributary");
  expect(permitted(shop, "rds-db:connect")[0]).toMatch(/Instance[^"]*DbiResourceId.*\/tributary"/);
  shop.template.resourceCountIs("AWS::EC2::SecurityGroupIngress", 1);
  expect(JSON.stringify(shop.template.toJSON())).not.toMatch(LOST_NUMBER);
  expect(JSON.stringify(dataTemplate.toJSON())).not.toMatch(/Shop:|Pipeline/);
});

test("a secret of another stack: one secret to read, and no user in the environment", () => {
  const { shop } = onDatabase(aurora, (data) => ({
    secret: new secretsmanager.Secret(data, "Capture"),
  }));
  expect(permitted(shop, "secretsmanager:GetSecretValue")).toHaveLength(1);
  expect(environment(shop)).not.toHaveProperty("PGUSER");
  expect(permitted(shop, "rds-db:connect")).toEqual([]);
});

describe("an imported cluster", () => {
  const imported = (attributes: Partial<rds.DatabaseClusterAttributes>) => {
    const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
    const stack = new Stack(app, "Shop", env);
    new CdcPipeline(stack, "Pipeline", {
      definition: definition(),
      vpc: new ec2.Vpc(stack, "Vpc"),
      database: rds.DatabaseCluster.fromDatabaseClusterAttributes(stack, "Aurora", {
        clusterIdentifier: "shop",
        ...attributes,
      }),
      databaseName: "shop",
      authentication: "iam",
    });
    return { template: Template.fromStack(stack) };
  };
  const known = {
    clusterEndpointAddress: "shop.cluster-abc.eu-central-1.rds.amazonaws.com",
    readerEndpointAddress: "shop.cluster-ro-abc.eu-central-1.rds.amazonaws.com",
    port: 5432,
  };

  test("with what it is known by", () => {
    const shop = imported({ ...known, clusterResourceIdentifier: "cluster-ABC" });
    expect(environment(shop)).toMatchObject({ PGHOST: known.clusterEndpointAddress, PGPORT: "5432" });
    expect(permitted(shop, "rds-db:connect")[0]).toContain("dbuser:cluster-ABC/tributary");
    // It brings no security group to put a rule on: the way out is open, and the port alone.
    shop.template.resourceCountIs("AWS::EC2::SecurityGroupIngress", 0);
    expect(resource(shop, "AWS::EC2::SecurityGroup").Properties.SecurityGroupEgress).toContainEqual(
      expect.objectContaining({ CidrIp: "0.0.0.0/0", FromPort: 5432, ToPort: 5432 }),
    );
  });

  test.each([
    [
      "without its endpoint",
      { clusterResourceIdentifier: "cluster-ABC" },
      /database: .*clusterEndpointAddress and port/,
    ],
    ["without its resource id", known, /database: .*clusterResourceIdentifier/],
  ])("%s it is refused, with what to give", (_, attributes, message) => {
    expect(() => imported(attributes)).toThrow(message);
  });
});
