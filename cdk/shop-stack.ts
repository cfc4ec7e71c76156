import { Annotations, CfnParameter, RemovalPolicy, Stack } from "aws-cdk-lib";
import * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as iam from "aws-cdk-lib/aws-iam";
import * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import * as sns from "aws-cdk-lib/aws-sns";
import * as subscriptions from "aws-cdk-lib/aws-sns-subscriptions";
import * as sqs from "aws-cdk-lib/aws-sqs";
import type { Construct } from "constructs";
import type { Pipeline } from "../lib/definition/definition.ts";
import { CdcPipeline } from "./constructs/cdc-pipeline.ts";
import type { ConsumerSettings } from "./constructs/consumer-function.ts";
import { acknowledge } from "./constructs/nag.ts";
import type { Settings } from "./settings.ts";

/** Settings of the example stack. */
export interface ShopStackProps {
  readonly definition: Pipeline;
  readonly settings: Settings;
}

/** The example: the shop's pipeline, and the sinks of its three consumers. */
export class ShopStack extends Stack {
  readonly pipeline: CdcPipeline;

  constructor(scope: Construct, id: string, { definition, settings }: ShopStackProps) {
    super(scope, id, {
      description: `Tributary: change data capture, pipeline ${definition.name}`,
      // A VPC is looked up in an account that is known.
      ...(settings.vpcId
        ? {
            env: {
              account: process.env.CDK_DEFAULT_ACCOUNT ?? "",
              region: process.env.CDK_DEFAULT_REGION ?? "",
            },
          }
        : {}),
    });
    const removalPolicy = settings.deleteData
      ? RemovalPolicy.DESTROY
      : RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE;
    const vpc = settings.vpcId
      ? ec2.Vpc.fromLookup(this, "Vpc", { vpcId: settings.vpcId })
      : new ec2.Vpc(this, "Vpc", {
          maxAzs: 2,
          natGateways: 0,
          subnetConfiguration: [{ name: "isolated", subnetType: ec2.SubnetType.PRIVATE_ISOLATED }],
        });
    if (vpc instanceof ec2.Vpc) {
      acknowledge(
        vpc,
        "AwsSolutions-VPC7",
        "A trial's VPC without a way in or out; your own VPC has its flow logs.",
      );
    }
    const endpoints = settings.endpoints ?? (settings.vpcId ? undefined : "create");
    const secret = this.#databaseSecret(settings);
    this.pipeline = new CdcPipeline(this, "Pipeline", {
      definition: this.#deployable(definition, settings),
      vpc,
      ...(endpoints ? { endpoints } : {}),
      database: {
        host: settings.databaseHost ?? this.#parameter("DatabaseHost", "Host of the PostgreSQL server"),
        port: settings.databasePort,
        ...(settings.databaseResourceId ? { resourceId: settings.databaseResourceId } : {}),
        ...(settings.databaseSecurityGroupId
          ? {
              securityGroup: ec2.SecurityGroup.fromSecurityGroupId(
                this,
                "DatabaseSecurityGroup",
                settings.databaseSecurityGroupId,
              ),
            }
          : {}),
      },
      databaseName: settings.databaseName,
      databaseUser: settings.databaseUser,
      authentication: settings.authentication,
      ...(secret ? { secret } : {}),
      ...(settings.captureImage ? { capture: { image: settings.captureImage } } : {}),
      ...(settings.alarmEmail ? { alarmTopic: this.#alarmTopic(settings.alarmEmail) } : {}),
      consumers: this.#sinks(settings, removalPolicy),
      removalPolicy,
    });
  }

  /** The definition without the consumer whose read model nobody named. */
  #deployable(definition: Pipeline, settings: Settings): Pipeline {
    if (settings.readModelSecretArn) return definition;
    Annotations.of(this).addInfoV2(
      "tributary:no-read-model",
      "order-summary is left out: name its read model with -c readModelSecretArn=… (docs/10-deploy.md)",
    );
    return { ...definition, consumers: definition.consumers.filter(({ name }) => name !== "order-summary") };
  }

  #databaseSecret(settings: Settings): secretsmanager.ISecret | undefined {
    if (settings.authentication === "iam") return undefined;
    const arn =
      settings.databaseSecretArn ??
      this.#parameter("DatabaseLoginArn", "ARN of the secret with the capture role's username and password");
    return secretsmanager.Secret.fromSecretCompleteArn(this, "DatabaseSecret", arn);
  }

  /** Asked for at deploy, so that a synth without any setting works. */
  #parameter(id: string, description: string): string {
    return new CfnParameter(this, id, { type: "String", description, minLength: 1 }).valueAsString;
  }

  #alarmTopic(email: string): sns.ITopic {
    const topic = new sns.Topic(this, "Alarms", { enforceSSL: true });
    topic.addSubscription(new subscriptions.EmailSubscription(email));
    return topic;
  }

  /** The stores that the handlers of the example write to. */
  #sinks(settings: Settings, removalPolicy: RemovalPolicy): Record<string, ConsumerSettings> {
    const customers = new dynamodb.Table(this, "Customers", {
      partitionKey: { name: "id", type: dynamodb.AttributeType.STRING },
      billingMode: dynamodb.BillingMode.PAY_PER_REQUEST,
      timeToLiveAttribute: "expiresAt",
      pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
      removalPolicy,
    });
    const letters = new sqs.Queue(this, "Letters", { enforceSSL: true, removalPolicy });
    acknowledge(
      letters,
      "AwsSolutions-SQS3",
      "Stands for the mailer's own queue, which is the mailer's business.",
    );
    const allow = (actions: string[], resource: string) =>
      new iam.PolicyStatement({ actions, resources: [resource] });
    const { readModelSecretArn } = settings;
    return {
      "customer-view": {
        environment: { CUSTOMER_TABLE: customers.tableName },
        policies: [allow(["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Scan"], customers.tableArn)],
      },
      notifications: {
        environment: { LETTER_QUEUE_URL: letters.queueUrl },
        policies: [allow(["sqs:SendMessage"], letters.queueArn)],
      },
      ...(readModelSecretArn
        ? {
            "order-summary": {
              environment: { READ_MODEL_SECRET_ARN: readModelSecretArn },
              policies: [allow(["secretsmanager:GetSecretValue"], readModelSecretArn)],
            },
          }
        : {}),
    };
  }
}
