import { errorSection, NOTHING_RUNS, type Section } from "./entry.ts";

/** Commands on a deployed stack. */
export const COMMAND_ERRORS: Section = errorSection("Commands on a deployed stack", NOTHING_RUNS, {
  AWS_CREDENTIALS: {
    retry: "stop",
    meaning: "AWS does not take a command's credentials: they have expired, are wrong, or there are none",
    why: "Sessions of single sign-on last some hours; a shell has the variables or the profile of another account.",
    remedy: "sign in again (`aws sso login`), or name another `--profile`",
  },
  AWS_RIGHT_MISSING: {
    retry: "stop",
    meaning: "the caller of a command lacks the right to make one call, which the message names",
    why: "The role's policy does not allow the action on this resource.",
    remedy:
      "allow the call, or name another `--profile`; [what each verb calls](10-deploy.md#rights-of-the-operator)",
  },
  AWS_UNAVAILABLE: {
    retry: "restart",
    meaning: "an AWS service did not answer a command, or failed",
    why: "The network, an endpoint that is not reached from here, another region, or a fault of the service.",
    remedy: "repeat the command; see that region, network and endpoint are right",
    ifNothing: "Nothing: the command has ended. What it had not done is not done.",
  },
  REMOTE_IMAGE: {
    retry: "stop",
    meaning: "the deployed capture service cannot lend its task to a verb with `--remote`",
    why: "The stack was deployed by an older version, its service is gone, or the image or the log is another one.",
    remedy: "deploy the stack again with this version, with its own image",
  },
  REMOTE_SINK: {
    retry: "stop",
    meaning: "`verify --remote`: the stack has no task that can read the sink of this consumer",
    why: "Its entry file exports no `sink`, its function is in another VPC than the capture task, or the stack was deployed by an older version.",
    remedy:
      "export `sink` beside `handler` and deploy; or verify without `--remote`, where database and sink are both reached",
  },
  REMOTE_TASK: {
    retry: "stop",
    meaning: "the task of a verb with `--remote` did not start, or ended without a word of its verb",
    why: "Fargate had no room, the image or the log was not reached from its subnets, or the memory was too little.",
    remedy: "do what the message's reason asks for, then run the verb again",
  },
  REMOTE_STOPPED: {
    retry: "stop",
    meaning:
      "a verb with `--remote` was given up (Ctrl-C), or its task did not start in 5 minutes or end in an hour",
    why: "Somebody stopped it, Fargate did not come to it, or the verb waits for something.",
    remedy: "run it again, first without `--confirm`: what it had done is done",
  },
  STATE_TABLE_NEWER: {
    retry: "stop",
    meaning: "a command is older than what the pipeline's capture task stores in the state table",
    why: "The pipeline was deployed by a newer version of tributary-cdc than the one that the command is of.",
    remedy: "use the version that was deployed: `npm install tributary-cdc@latest` in its project",
  },
  STACK_NOT_FOUND: {
    retry: "stop",
    meaning: "no stack of that name in this account and region; names near it are told",
    why: "A misspelled name, or another account or region.",
    remedy: "correct `--stack`, or name `--profile` and `--region` of the account that has it",
  },
  STACK_OTHER_ACCOUNT: {
    retry: "stop",
    meaning: "the stack's ARN is of another account than the credentials",
    why: "The shell has the credentials of another account.",
    remedy: "name the `--profile` of that account",
  },
  STACK_PIPELINE: {
    retry: "stop",
    meaning:
      "the stack has no pipeline, another one, several, or was deployed by a version without stable outputs",
    why: "Verbs find a pipeline's resources by the outputs of its stack.",
    remedy: "do what the message says: deploy the stack again, or name the definition with `--pipeline`",
  },
});
