// Place fields: from a path of the neutral request to where the caller wrote it in a body of OpenAI's form.
import type { PlaceField } from "../inference_door.ts";

/**
 * A `PlaceField` for names that differ in more than their case: `/topP` becomes `/top_p` by itself.
 *
 * @param renamed neutral name to the body's name, for lists and values that stand alike in both
 * @param gathered neutral name to the body's name, where an index of ours would mean nothing there
 */
export function fieldPlacer(
  renamed: Readonly<Record<string, string>>,
  gathered: Readonly<Record<string, string>> = {},
): PlaceField {
  return (path) => {
    const [, name = "", ...rest] = path.split("/");
    const whole = gathered[name];
    if (whole !== undefined) return `/${whole}`;
    if (name === "") return path;
    const own = renamed[name] ?? name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    return ["", own, ...rest].join("/");
  };
}
