import { fileURLToPath } from "node:url";
import { ExpectedResult, IntegTest } from "@aws-cdk/integ-tests-alpha";
import { CustomResource, Duration, RemovalPolicy, Stack } from "aws-cdk-lib";
import * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as iam from "aws-cdk-lib/aws-iam";
import * as lambda from "aws-cdk-lib/aws-lambda";
import * as nodejs from "aws-cdk-lib/aws-lambda-nodejs";
import * as rds from "aws-cdk-lib/aws-rds";
import * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import * as customResources from "aws-cdk-lib/custom-resources";
import type { Construct } from "constructs";
import { CdcPipeline } from "../cdk/constructs/cdc-pipeline.ts";
import { FUNCTION_BUNDLING } from "../cdk/constructs/function-bundling.ts";
import type { Customer } from "./database-function.ts";
import definition from "./pipeline.ts";

const DATABASE = "integ";
const PROJECT = fileURLToPath(new URL("..", import.meta.url));
/** A row that the test writes, and how its consumer keeps it. */
const ADA: Customer = { id: "1", email: "ada@example.org", name: "Ada" };
/** From the commit to the effect in seconds; the rest is for the task's first start. */
const EFFECT = { interval: Duration.seconds(10), totalTimeout: Duration.minutes(15) };

/** A pipeline with all that it needs, made for the test and removed with it: network, database, role, publication and a sink. */
export class IntegStack extends Stack {
  readonly pipeline: CdcPipeline;
  readonly customers: dynamodb.Table;
  /** Changes a row of the database. */
  readonly database: lambda.Function;

  constructor(scope: Construct, id: string) {
    super(scope, id, { description: "Tributary: the test on AWS (npm run integ); may be deleted" });
    const vpc = new ec2.Vpc(this, "Vpc", { maxAzs: 2, natGateways: 1 });
    const engine = rds.DatabaseInstanceEngine.postgres({ version: rds.PostgresEngineVersion.VER_17 });
    const instance = new rds.DatabaseInstance(this, "Database", {
      engine,
      instanceType: ec2.InstanceType.of(ec2.InstanceClass.T4G, ec2.InstanceSize.MICRO),
      vpc,
      credentials: rds.Credentials.fromGeneratedSecret("postgres"),
      databaseName: DATABASE,
      allocatedStorage: 20,
      storageEncrypted: true,
      backupRetention: Duration.days(0),
      deletionProtection: false,
      removalPolicy: RemovalPolicy.DESTROY,
      parameters: { "rds.logical_replication": "1", max_slot_wal_keep_size: "1024" },
    });
    const login = new secretsmanager.Secret(this, "Login", {
      generateSecretString: {
        secretStringTemplate: JSON.stringify({ username: "tributary" }),
        generateStringKey: "password",
        excludePunctuation: true,
      },
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.database = new nodejs.NodejsFunction(this, "Beside", {
      entry: fileURLToPath(new URL("database-function.ts", import.meta.url)),
      projectRoot: PROJECT,
      depsLockFilePath: `${PROJECT}package-lock.json`,
      runtime: lambda.Runtime.NODEJS_24_X,
      architecture: lambda.Architecture.ARM_64,
      timeout: Duration.minutes(1),
      vpc,
      bundling: { ...FUNCTION_BUNDLING, externalModules: ["pg-native"] },
      environment: {
        // Lambda's Node trusts RDS's authorities only when told so.
        NODE_EXTRA_CA_CERTS: "/var/runtime/ca-cert.pem",
        PGHOST: instance.dbInstanceEndpointAddress,
        PGPORT: instance.dbInstanceEndpointPort,
        PGDATABASE: DATABASE,
        MASTER_SECRET_ARN: instance.secret?.secretArn ?? "",
        CAPTURE_SECRET_ARN: login.secretArn,
      },
    });
    instance.secret?.grantRead(this.database);
    login.grantRead(this.database);
    instance.connections.allowDefaultPortFrom(this.database);
    const provider = new customResources.Provider(this, "Preparing", { onEventHandler: this.database });
    const prepared = new CustomResource(this, "Prepared", { serviceToken: provider.serviceToken });
    prepared.node.addDependency(instance);

    this.customers = new dynamodb.Table(this, "Customers", {
      partitionKey: { name: "id", type: dynamodb.AttributeType.STRING },
      billingMode: dynamodb.BillingMode.PAY_PER_REQUEST,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.pipeline = new CdcPipeline(this, "Pipeline", {
      definition,
      projectRoot: PROJECT,
      vpc,
      database: instance,
      databaseName: DATABASE,
      secret: login,
      consumers: {
        "customer-view": {
          environment: { CUSTOMER_TABLE: this.customers.tableName },
          policies: [
            new iam.PolicyStatement({
              actions: ["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Scan"],
              resources: [this.customers.tableArn],
            }),
          ],
        },
      },
      removalPolicy: RemovalPolicy.DESTROY,
    });
    // It checks the database as soon as it starts.
    for (const { service } of this.pipeline.captures) service.node.addDependency(prepared);
  }
}

/**
 * What must be seen: a row that is inserted and updated reaches the consumer's table as it is in the database, and nothing is parked. Each
 * assertion waits, and a deploy whose assertion does not come true in time fails.
 */
export function addAssertions(scope: Construct, stack: IntegStack): IntegTest {
  const test = new IntegTest(scope, "Integ", { testCases: [stack] });
  const write = test.assertions.invokeFunction({
    functionName: stack.database.functionName,
    payload: JSON.stringify({ customer: ADA }),
  });
  const arrived = test.assertions
    .awsApiCall("DynamoDB", "getItem", {
      TableName: stack.customers.tableName,
      Key: { id: { S: ADA.id } },
      ConsistentRead: true,
    })
    .expect(
      ExpectedResult.objectLike({ Item: { id: { S: ADA.id }, name: { S: ADA.name }, tier: { S: "gold" } } }),
    )
    .waitForAssertions(EFFECT);
  arrived.provider?.addPolicyStatementFromSdkCall("DynamoDB", "getItem", [stack.customers.tableArn]);
  const [consumer] = stack.pipeline.consumers;
  const queue = consumer?.deadLetterQueue.queue;
  const nothingParked = test.assertions
    .awsApiCall("SQS", "getQueueAttributes", {
      QueueUrl: queue?.queueUrl,
      AttributeNames: ["ApproximateNumberOfMessages"],
    })
    .expect(ExpectedResult.objectLike({ Attributes: { ApproximateNumberOfMessages: "0" } }))
    .waitForAssertions(EFFECT);
  write.next(arrived).next(nothingParked);
  return test;
}
