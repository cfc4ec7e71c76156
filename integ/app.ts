import { App } from "aws-cdk-lib";
import { addAssertions, IntegStack } from "./integ-stack.ts";

/* The app of `npm run integ`. Its stacks are removed after the test, with all that is in them. */

const app = new App();
addAssertions(app, new IntegStack(app, "tributary-integ"));
