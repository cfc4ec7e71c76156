import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, posix } from "node:path";
import { App, FileSystem, Stack, type StackProps } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CAPTURE } from "../../cdk/constructs/capture-program.ts";
import type { CaptureSettings } from "../../cdk/constructs/capture-service.ts";
import { CdcPipeline } from "../../cdk/constructs/cdc-pipeline.ts";
import {
  completeDockerfile,
  type ImageContents,
  writeImageContext,
} from "../../cdk/constructs/image-context.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { readDefinition } from "../../lib/definition/file.ts";
import { outbox, type PipelineInput, polling, postgres, triggers } from "../../lib/definition/pipeline.ts";
import { basics, definition, findings, resource, type Synthesized, synthesize } from "./stacks.ts";

const RDS = { host: "shop.abc.eu-central-1.rds.amazonaws.com" };
const PLAIN = { host: "db.internal" };

let directory = "";
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "tributary-image-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

/** Returns the certificate of a new authority, as anybody can make it, and leaves its key in a file. */
function authority(key: string): string {
  const make =
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority";
  return execFileSync("openssl", [...make.split(" "), "-keyout", key], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
}

let contexts = 0;
function contextOf(contents: Partial<ImageContents> = {}): string {
  const context = join(directory, `context-${++contexts}`);
  mkdirSync(context);
  writeImageContext(context, { definition: definition(), ...contents });
  return context;
}

function capture(settings: CaptureSettings, database: object = PLAIN): Synthesized {
  return synthesize((stack) => ({
    ...basics(stack),
    definition: definition({ consumers: [] }),
    database: database as typeof PLAIN,
    capture: settings,
  }));
}

/** The one task definition. */
function task(of: Pick<Synthesized, "template">) {
  return resource(of, "AWS::ECS::TaskDefinition").Properties as {
    RuntimePlatform: object;
    ContainerDefinitions: { Image: unknown; Environment: { Name: string; Value: unknown }[] }[];
  };
}

describe("the build context", () => {
  test("has the same files and modes under every umask, readable for the image's user", () => {
    const usual = process.umask(0o022);
    try {
      const first = contextOf();
      process.umask(0o077);
      const second = contextOf();
      expect(FileSystem.fingerprint(second)).toBe(FileSystem.fingerprint(first));
      const modes = (context: string) =>
        readdirSync(context, { recursive: true })
          .map((name) => [String(name), (statSync(join(context, String(name))).mode & 0o777).toString(8)])
          .sort();
      expect(modes(second)).toEqual(modes(first));
      for (const [name, mode] of modes(second)) expect(mode, name).toBe(name === "writable" ? "755" : "644");
    } finally {
      process.umask(usual);
    }
    // A context that is unpacked elsewhere may lose its modes: the Dockerfile gives them to what the program reads.
    const copies = readFileSync(join(contextOf(), "Dockerfile"), "utf8").match(
      /^(?:COPY|ADD) (?!--from).*$/gm,
    );
    for (const line of copies ?? []) expect(line).toMatch(/--chmod=444 |--chown=1000:1000 writable\//);
  });

  const consumers = definition().consumers;
  test.each<[string, Partial<PipelineInput>]>([
    [
      "a consumer's settings",
      {
        consumers: consumers.map((one) => ({
          ...one,
          memoryMB: 2048,
          batchSize: 7,
          attempts: 9,
          entry: "moved.ts",
        })),
      },
    ],
    [
      "a consumer's way with poison",
      { consumers: consumers.map((one) => ({ ...one, poison: "stop" as const, timeoutSeconds: 9 })) },
    ],
    ["the consumers' order", { consumers: consumers.toReversed() }],
  ])("stays the same when %s change: capture does not restart", (_what, over) => {
    const hash = (of: Partial<PipelineInput>) =>
      FileSystem.fingerprint(contextOf({ definition: definition(of) }));
    expect(hash(over)).toBe(hash({}));
  });

  test("changes with what capture reads: a consumer's name, topics and start, and the source", async () => {
    const [first, second] = consumers as [(typeof consumers)[number], (typeof consumers)[number]];
    const over: Partial<PipelineInput>[] = [
      {},
      { consumers: [first] },
      { consumers: [{ ...first, name: "renamed" }, second] },
      { consumers: [{ ...first, topics: ["*.public.orders"] }, second] },
      { consumers: [{ ...first, startAt: "oldest" }, second] },
      { stream: { retentionHours: 48 } },
    ];
    const contents = over.map((of) => contextOf({ definition: definition(of) }));
    expect(new Set(contents.map((context) => FileSystem.fingerprint(context))).size).toBe(over.length);
    // The program takes it as it is, with all that it asks of consumers.
    const read = await readDefinition(join(contents[4] as string, "pipeline.mjs"));
    expect(read.consumers).toMatchObject([
      { name: "customer-view", topics: first.topics, startAt: "oldest" },
      { name: "notifications", topics: second.topics },
    ]);
  });

  test.each<[string, PipelineInput["source"]]>([
    [
      "postgres",
      postgres({
        tables: ["public.*", 'public."Odd.Name"'],
        outbox: { table: 'public."Out.Box"', messages: true, cloudEvents: { source: "/shop" } },
        excludeColumns: { "public.cards": ["number"] },
        where: { "public.orders": "note <> '\u2028</script>'" },
        slot: "own",
      }),
    ],
    ["postgres with slots", postgres({ tables: ["public.*"], slots: 16 })],
    ["triggers", triggers({ tables: ["public.*"] })],
    ["polling", polling({ tables: ["public.*"], deletes: { everySeconds: 60 } })],
    ["outbox", outbox({ table: 'public."Out.Box"', keepHours: 2 })],
  ])("holds the definition of a %s source as capture reads it at home", async (_kind, source) => {
    // As long a name as there may be: the names of slots and topics are made of it.
    const given = definition({
      name: "s".repeat(40),
      source,
      topics: { routes: [{ match: "^a", to: "b" }] },
    });
    const read = await readDefinition(join(contextOf({ definition: given }), "pipeline.mjs"));
    expect({ ...read, consumers: [] }).toEqual({ ...given, consumers: [] });
  });

  test("runs nothing while it is built, whatever image it begins with", () => {
    const own = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/node:24.21.0-alpine";
    const dockerfile = readFileSync(join(contextOf({ baseImage: own }), "Dockerfile"), "utf8");
    expect(dockerfile).not.toMatch(/^RUN|public\.ecr\.aws/m);
    expect(dockerfile.match(/^FROM .*$/gm)).toEqual([`FROM ${own} AS node`, "FROM scratch"]);
  });

  test("is the same where Git has written Windows' line ends, and a line that is missing is no silence", () => {
    const template = readFileSync(join(CAPTURE, "Dockerfile"), "utf8");
    const lines = ["COPY --chmod=444 database.pem ./authorities/\n"];
    const made = completeDockerfile(template, lines, "node:own");
    expect(made).toContain(lines[0]);
    expect(completeDockerfile(template.replaceAll("\n", "\r\n"), lines, "node:own")).toBe(made);
    expect(() => completeDockerfile(template.replace("# certificates\n", ""), lines, undefined)).toThrow(
      /no line # certificates/,
    );
  });

  // https://github.com/moby/buildkit/issues/5943
  test("makes each folder before files with a mode are copied there: BuildKit gives their mode to a folder that it makes", () => {
    const database = join(directory, "ca.pem");
    writeFileSync(database, authority(join(directory, "ca.key")));
    const url = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem";
    const dockerfile = readFileSync(
      join(contextOf({ certificateAuthorityFile: database, rdsAuthorities: { url } }), "Dockerfile"),
      "utf8",
    );
    const made = new Set<string>();
    const into: string[] = [];
    let at = "/";
    for (const [word, ...rest] of dockerfile.split("\n").map((line) => line.split(" "))) {
      const last = rest.at(-1) ?? "";
      if (word === "WORKDIR") {
        at = posix.resolve(at, last);
        made.add(at);
      }
      if (!rest.some((option) => option.startsWith("--chmod"))) continue;
      const folder = last.endsWith("/") ? last : posix.dirname(last);
      into.push(posix.resolve(at, folder));
    }
    expect(into).toEqual(["/app/authorities", "/app/authorities", "/app"]);
    for (const folder of into) expect(made).toContain(folder);
  });
});

describe("certificate authorities", () => {
  /** An authority of its own, such as anybody can make. */
  let pem = "";
  let sha256 = "";
  beforeAll(() => {
    pem = join(directory, "bundle.pem");
    writeFileSync(pem, authority(join(directory, "key")));
    sha256 = createHash("sha256").update(readFileSync(pem)).digest("hex");
  });

  /** The Dockerfile's line for certificates, of a stack whose image is in its assembly. */
  function lines(props: StackProps, settings: CaptureSettings = {}, database: object = RDS): string[] {
    const outdir = join(directory, `out-${++contexts}`);
    const app = new App({ outdir });
    const stack = new Stack(app, "Test", props);
    new CdcPipeline(stack, "Pipeline", {
      ...basics(stack),
      definition: definition({ consumers: [] }),
      database: database as typeof RDS,
      capture: settings,
    });
    app.synth();
    const context = readdirSync(outdir).find((name) => existsSync(join(outdir, name, "Dockerfile")));
    const text = readFileSync(join(outdir, context as string, "Dockerfile"), "utf8");
    return text.match(/^(?:ADD|COPY) .*\.\/authorities\/.*$/gm) ?? [];
  }

  test.each([
    ["eu-central-1", "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"],
    ["us-gov-west-1", "https://truststore.pki.us-gov-west-1.rds.amazonaws.com/global/global-bundle.pem"],
    ["cn-north-1", "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn/global/global-bundle.pem"],
  ])("of RDS in %s are its partition's, and a checksum holds the download", (region, url) => {
    const env = { account: "123456789012", region };
    const target = "./authorities/rds-global-bundle.pem";
    expect(lines({ env }, { rdsAuthorities: { sha256 } })).toEqual([
      `ADD --checksum=sha256:${sha256} --chmod=444 ${url} ${target}`,
    ]);
  });

  test("from a file stand in the context, and nothing is fetched", () => {
    expect(lines({}, { rdsAuthorities: { file: pem, sha256: sha256.toUpperCase() } })).toEqual([
      "COPY --chmod=444 rds-global-bundle.pem ./authorities/",
    ]);
    expect(lines({}, {}, { ...PLAIN, certificateAuthorityFile: pem })).toEqual([
      "COPY --chmod=444 database.pem ./authorities/",
    ]);
  });

  test("are not fetched for a server outside of RDS", () => {
    expect(contextOf()).toSatisfy(
      (context: string) => !/^ADD/m.test(readFileSync(join(context, "Dockerfile"), "utf8")),
    );
  });

  test.each<[string, () => unknown, RegExp]>([
    [
      "another checksum",
      () => lines({}, { rdsAuthorities: { file: pem, sha256: "0".repeat(64) } }),
      /capture\.rdsAuthorities\.file: its SHA-256 is [0-9a-f]{64}/,
    ],
    [
      "no checksum",
      () => lines({}, { rdsAuthorities: { file: pem, sha256: "" } }),
      /capture\.rdsAuthorities\.sha256: write the 64/,
    ],
    [
      "no such file",
      () => lines({}, { rdsAuthorities: { file: "/nowhere.pem", sha256 } }),
      /capture\.rdsAuthorities\.file: name a PEM file/,
    ],
    [
      "a partition that is not known",
      () => lines({ env: { account: "123456789012", region: "us-iso-east-1" } }),
      /capture\.rdsAuthorities: the address of RDS's bundle in the partition aws-iso is not known/,
    ],
    [
      "a database outside of RDS",
      () => capture({ rdsAuthorities: { sha256 } }),
      /capture\.rdsAuthorities: leave it out: the database is not RDS's/,
    ],
    [
      "an image that is built",
      () => capture({ image: "node:24", rdsAuthorities: { sha256 } }, RDS),
      /capture\.rdsAuthorities: leave it out: capture\.image/,
    ],
    [
      "a base for an image that is built",
      () => capture({ image: "node:24", baseImage: "node:24" }),
      /capture\.baseImage: leave it out: capture\.image/,
    ],
    [
      "an architecture that is not known",
      () => capture({ architecture: "arm" as never }),
      /capture\.architecture: write "arm64" or "x86_64"/,
    ],
    [
      "a name in ECR that is none",
      () => capture({ image: "1234.dkr.ecr.eu-central-1.amazonaws.com/x" }),
      /capture\.image: write <account>\.dkr\.ecr/,
    ],
    [
      "a name in ECR by which no repository is known",
      () => capture({ image: "123456789012.dkr-ecr.eu-central-1.on.aws/capture:1" }),
      /capture\.image: write <account>\.dkr\.ecr/,
    ],
  ])("%s is refused at synth, by name, value and remedy", (_what, build, message) => {
    let refused: unknown;
    try {
      build();
    } catch (error) {
      refused = error;
    }
    expect(refused).toBeInstanceOf(ConfigurationError);
    expect((refused as Error).message).toMatch(message);
  });

  test("a file with a private key is refused: it would go into the image", () => {
    const file = join(directory, "with-key.pem");
    writeFileSync(file, readFileSync(pem, "utf8") + readFileSync(join(directory, "key"), "utf8"));
    expect(() => lines({}, {}, { ...PLAIN, certificateAuthorityFile: file })).toThrow(
      /database\.certificateAuthorityFile: it holds a private key/,
    );
  });

  test("a file that holds no certificate is refused", () => {
    const file = join(directory, "none.pem");
    writeFileSync(file, "hello");
    const of = createHash("sha256").update("hello").digest("hex");
    expect(() => lines({}, { rdsAuthorities: { file, sha256: of } })).toThrow(/holds no certificate/);
  });
});

test("the architecture is the task's and the image's; ARM64 unless it is chosen", () => {
  const platforms = ([undefined, "arm64", "x86_64"] as const).map((architecture) => {
    const outdir = join(directory, `out-${++contexts}`);
    const app = new App({ outdir, context: { "aws:cdk:bundling-stacks": [] } });
    const stack = new Stack(app, "Test");
    new CdcPipeline(stack, "Pipeline", {
      ...basics(stack),
      definition: definition({ consumers: [] }),
      capture: architecture ? { architecture } : {},
    });
    const { RuntimePlatform } = task({ template: Template.fromStack(stack) });
    app.synth();
    const assets = JSON.parse(readFileSync(join(outdir, "Test.assets.json"), "utf8")) as {
      dockerImages: Record<string, { source: { platform: string } }>;
    };
    return [RuntimePlatform, Object.values(assets.dockerImages).map(({ source }) => source.platform)];
  });
  const linux = { OperatingSystemFamily: "LINUX" };
  expect(platforms).toEqual([
    [{ ...linux, CpuArchitecture: "ARM64" }, ["linux/arm64"]],
    [{ ...linux, CpuArchitecture: "ARM64" }, ["linux/arm64"]],
    [{ ...linux, CpuArchitecture: "X86_64" }, ["linux/amd64"]],
  ]);
});

describe("an image of a private repository", () => {
  const account = "210987654321";
  const digest = `sha256:${"ab".repeat(32)}`;
  const named = capture({ image: `${account}.dkr.ecr.eu-central-1.amazonaws.com/team/capture@${digest}` });

  test("is pulled by its name", () => {
    const [container] = task(named).ContainerDefinitions;
    expect(JSON.stringify(container?.Image)).toContain(`${account}.dkr.ecr.eu-central-1.`);
    expect(JSON.stringify(container?.Image)).toContain(`/team/capture@${digest}`);
  });

  // https://docs.aws.amazon.com/AmazonECR/latest/userguide/security_iam_id-based-policy-examples.html
  test("the execution role, and no other, may pull from it and from no other repository", () => {
    const pulls = Object.entries(named.template.findResources("AWS::IAM::Policy")).filter(([, policy]) =>
      JSON.stringify(policy).includes("ecr:"),
    );
    expect(pulls.map(([id]) => id)).toEqual([expect.stringContaining("CaptureTaskExecutionRole")]);
    const [, policy] = pulls[0] as [string, { Properties: { PolicyDocument: { Statement: unknown[] } } }];
    const statements = policy.Properties.PolicyDocument.Statement;
    expect(statements).toEqual(
      expect.arrayContaining([
        {
          Action: ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"],
          Effect: "Allow",
          Resource: {
            "Fn::Join": [
              "",
              ["arn:", { Ref: "AWS::Partition" }, `:ecr:eu-central-1:${account}:repository/team/capture`],
            ],
          },
        },
        { Action: "ecr:GetAuthorizationToken", Effect: "Allow", Resource: "*" },
      ]),
    );
  });

  test("cdk-nag finds nothing", () => {
    expect(findings(named)).toEqual([]);
  });

  test("isolated subnets get the endpoints that a pull needs", () => {
    const isolated = synthesize((stack) => ({
      ...basics(stack),
      definition: definition({ consumers: [] }),
      vpc: new ec2.Vpc(stack, "Isolated", {
        natGateways: 0,
        subnetConfiguration: [{ name: "data", subnetType: ec2.SubnetType.PRIVATE_ISOLATED }],
      }),
      endpoints: "create",
      capture: { image: `${account}.dkr.ecr.eu-central-1.amazonaws.com/capture:1` },
    }));
    const services = JSON.stringify(
      Object.values(isolated.template.findResources("AWS::EC2::VPCEndpoint")).map(
        ({ Properties }) => (Properties as { ServiceName: unknown }).ServiceName,
      ),
    );
    // https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html
    for (const service of ["ecr.api", "ecr.dkr", ".s3", "logs"]) expect(services).toContain(service);
  });
});
