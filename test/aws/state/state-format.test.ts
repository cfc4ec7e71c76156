import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { Command } from "commander";
import { expect, test } from "vitest";
import { speakToPlace } from "../../../lib/cli/place.ts";
import { checkStateFormat, STATE_FORMAT } from "../../../lib/state/state-format.ts";
import { stateFormatKey } from "../../../lib/state/state-key.ts";
import { emulatedAws } from "../emulated.ts";

const aws = emulatedAws();

async function write(table: string, pipeline: string, format: number): Promise<void> {
  const { pk, sk } = stateFormatKey(pipeline);
  const Item = { pk: { S: pk }, sk: { S: sk }, format: { N: String(format) } };
  await aws().dynamodb.send(new PutItemCommand({ TableName: table, Item }));
}

test("items of a newer version are refused; those of this one, of none, and of another pipeline are not", async () => {
  const table = await aws().freshTable();
  const { dynamodb } = aws();
  const place = { dynamodb, table, pipeline: "shop", signal: new AbortController().signal };
  await checkStateFormat(place);
  await write(table, "shop", STATE_FORMAT);
  await write(table, "other", STATE_FORMAT + 1);
  await checkStateFormat(place);
  await write(table, "shop", STATE_FORMAT + 1);
  await expect(checkStateFormat(place)).rejects.toMatchObject({
    code: "STATE_TABLE_NEWER",
    message: expect.stringMatching(
      /"shop" in format 2, and this version of tributary-cdc knows them up to 1/,
    ),
  });
  // Who needs a table that is not there says so; a redrive by its function does not.
  await checkStateFormat({ ...place, table: "absent" });
});

test("a verb is refused before its action begins", async () => {
  const table = await aws().freshTable();
  await write(table, "shop", STATE_FORMAT + 1);
  const environment = { ...aws().environment, TRIBUTARY_PIPELINE_NAME: "shop" };
  const verb = async (stateTable: string) => {
    const command = new Command("consumer");
    command.setOptionValue("stateTable", stateTable);
    await speakToPlace(command, { folder: "/", environment: { ...environment } });
  };
  await expect(verb(table)).rejects.toMatchObject({ code: "STATE_TABLE_NEWER" });
  await verb(await aws().freshTable());
});
