import type { AwsRefusal } from "../../aws/refusal.ts";

const PAGE =
  "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html#HowItWorks.DataTypes.Number";
const DIGITS = 38;
/** 9.99…E+125 is the largest, 1E-130 the smallest. */
const LARGEST_EXPONENT = 125;
const SMALLEST_EXPONENT = -130;

/** Returns why DynamoDB refuses a number, or undefined. */
export function numberRefusal(text: string): AwsRefusal | undefined {
  const [, whole, fraction = "", power = "0"] =
    /^[+-]?(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? [];
  if (whole === undefined || whole + fraction === "") {
    return refused(`The parameter cannot be converted to a numeric value: ${text}`);
  }
  const leading = /^0*/.exec(whole + fraction)?.[0].length ?? 0;
  const significant = (whole + fraction).slice(leading).replace(/0+$/, "");
  if (significant === "") return undefined;
  if (significant.length > DIGITS) {
    return refused("Attempting to store more than 38 significant digits in a Number");
  }
  const exponent = whole.length - leading - 1 + Number(power);
  if (exponent > LARGEST_EXPONENT) {
    return refused(
      "Number overflow. Attempting to store a number with magnitude larger than supported range",
    );
  }
  if (exponent < SMALLEST_EXPONENT) {
    return refused(
      "Number underflow. Attempting to store a number with magnitude smaller than supported range",
    );
  }
  return undefined;
}

function refused(message: string): AwsRefusal {
  return { code: "ValidationException", message, page: PAGE };
}
