import { execFile } from "node:child_process";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { install, installOnce } from "../../peers.ts";

const run = promisify(execFile);

const VERSION = "3.6.1.Final";
const MODULES = ["debezium-api", "debezium-embedded", "debezium-connector-postgres"];
/** Everything that the server knows, sinks of all clouds: 780 MB; its runner and its libraries are unpacked. */
const SERVER = `io.debezium:debezium-server-dist:${VERSION}:tar.gz`;
const SERVER_PARTS = "debezium-server/*-runner.jar,debezium-server/lib/*.jar";
const MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
/** What the classes of Debezium Server are compiled for; the engine's are for 17. */
const SERVER_JAVA = 21;
const ENGINE_JAVA = 17;
const VIRTUAL_MACHINES = "/usr/lib/jvm";
const READER = fileURLToPath(new URL("./EmbeddedReader.java", import.meta.url));

/** A Java development kit. */
interface Java {
  /** Its programs: `java`, `javac`. */
  readonly programs: string;
  readonly major: number;
  /** Such as `25.0.3`. */
  readonly version: string;
}

/** What a Java program of Debezium is started with: class path and options of the virtual machine. */
export interface DebeziumProgram {
  readonly java: string;
  readonly arguments: readonly string[];
}

/** Debezium as it was installed, or why not. */
export interface DebeziumInstallation {
  /** Versions, for the reader of the figures. */
  readonly about: string;
  readonly embedded: DebeziumProgram;
  /** A text: why it is not there. */
  readonly server: DebeziumProgram | string;
}

/**
 * Of the virtual machine. Beside its own choice (G1, a quarter of the memory) the same CPU a change, at a quarter of the
 * memory or less.
 */
export const JAVA_OPTIONS = "-XX:+UseParallelGC -Xmx512m";

/**
 * Installs Debezium's embedded engine and its server from Maven Central, and compiles the engine's reader.
 *
 * @returns a text where Java or Maven is missing: why.
 */
export async function installDebezium(javaOptions: string): Promise<DebeziumInstallation | string> {
  const java = await newestJava();
  if (java === undefined) return "no Java development kit (javac) was found";
  if (java.major < ENGINE_JAVA) return `Java ${java.version} is older than ${ENGINE_JAVA}`;
  try {
    await run("mvn", ["--version"]);
  } catch {
    return "Maven (mvn) was not found";
  }
  const maven = ["--batch-mode", "--quiet"];
  const folder = await installOnce(
    "debezium",
    { VERSION, MODULES, SERVER, SERVER_PARTS, MAVEN_PLUGIN },
    async (folder) => {
      await writeFile(join(folder, "pom.xml"), POM);
      await install(
        "mvn",
        [...maven, `${MAVEN_PLUGIN}:copy-dependencies`, "-DoutputDirectory=engine"],
        folder,
      );
      const unpack = [
        `-Dartifact=${SERVER}`,
        "-DoutputDirectory=.",
        `-Dmdep.unpack.includes=${SERVER_PARTS}`,
      ];
      await install("mvn", [...maven, `${MAVEN_PLUGIN}:unpack`, ...unpack], folder);
    },
  );
  const engine = join(folder, "engine", "*");
  const classes = join(folder, "classes");
  await install(join(java.programs, "javac"), ["-cp", engine, "-d", classes, READER], folder);
  const program = (options: readonly string[], classPath: readonly string[], main: string) => ({
    java: join(java.programs, "java"),
    arguments: [...javaOptions.split(" "), ...options, "-cp", classPath.join(":"), main],
  });
  const server = join(folder, "debezium-server");
  // What its runtime, Quarkus, asks for from Java 24 on.
  const open = ["--add-opens=java.base/java.lang=ALL-UNNAMED"];
  return {
    about: `Debezium ${VERSION} on Java ${java.version} ${javaOptions}`,
    embedded: program([], [classes, engine], "EmbeddedReader"),
    server:
      java.major < SERVER_JAVA
        ? `Debezium Server needs Java ${SERVER_JAVA}, and the newest here is ${java.version}`
        : program(open, [join(server, "*"), join(server, "lib", "*")], "io.debezium.server.Main"),
  };
}

/** Of those on the PATH, in JAVA_HOME, and where Debian's packages put theirs. */
async function newestJava(): Promise<Java | undefined> {
  const homes = await readdir(VIRTUAL_MACHINES).catch(() => []);
  const found: Java[] = [];
  for (const programs of [
    ...(process.env.PATH ?? "").split(":"),
    ...(process.env.JAVA_HOME ? [join(process.env.JAVA_HOME, "bin")] : []),
    ...homes.map((home) => join(VIRTUAL_MACHINES, home, "bin")),
  ]) {
    try {
      const { stdout, stderr } = await run(join(programs, "javac"), ["-version"]);
      // "javac 25.0.3"
      const version = /javac ([\d.]+)/.exec(stdout + stderr)?.[1];
      if (version !== undefined) found.push({ programs, version, major: Number.parseInt(version, 10) });
    } catch {
      // None here.
    }
  }
  return found.toSorted((a, b) => b.major - a.major)[0];
}

const POM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tributary</groupId><artifactId>bench</artifactId><version>1</version>
  <dependencies>${MODULES.map(
    (module) => `
    <dependency><groupId>io.debezium</groupId><artifactId>${module}</artifactId><version>${VERSION}</version></dependency>`,
  ).join("")}
  </dependencies>
</project>
`;
