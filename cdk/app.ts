import { App, Validations } from "aws-cdk-lib";
import { AwsSolutionsChecks } from "cdk-nag";
import definition from "./pipeline.ts";
import { readSettings } from "./settings.ts";
import { ShopStack } from "./shop-stack.ts";

/*
 * `npx cdk deploy`: the pipeline of cdk/pipeline.ts. Where things are (VPC, database) comes from the context: settings.ts.
 * In an app of your own use `CdcPipeline` from cdk/constructs/cdc-pipeline.ts.
 */

const app = new App();
const settings = readSettings((name) => app.node.tryGetContext(name) as unknown);
new ShopStack(app, settings.stackName ?? `tributary-${definition.name}`, { definition, settings });
Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
