import { existsSync } from "node:fs";
import { DevProject, type RunningVerb } from "../dev-project.ts";

/** A project in which `tributary dev` runs: the verbs speak to it as an operator's do. */
export class DevPlace {
  readonly project: DevProject;

  private constructor(project: DevProject) {
    this.project = project;
  }

  static async make(files: Readonly<Record<string, string>>): Promise<DevPlace> {
    return new DevPlace(await DevProject.make(files));
  }

  /** Runs a verb in the project's folder; `lines` has what both its streams printed, when it has ended. */
  run(environment: Readonly<Record<string, string>>, ...args: string[]) {
    const verb = this.project.run(args, environment);
    const lines: string[] = [];
    const ended = verb.finished.then(({ code, stdout, stderr }) => {
      lines.push(...`${stdout}\n${stderr}`.split("\n"));
      return code;
    });
    return { ended, lines };
  }

  /** Starts `tributary dev`, and waits until it streams. */
  async start(...args: readonly string[]): Promise<RunningVerb> {
    return await this.project.dev(...args);
  }

  /** Returns whether a file of the project is there. */
  has(name: string): boolean {
    return existsSync(this.project.path(name));
  }
}
