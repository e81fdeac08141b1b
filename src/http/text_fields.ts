// Text fields: inside, a text is known by its index; a client has to read where it stood in its own request.
import { Fault } from "../faults/fault.ts";

/**
 * Runs an inference and rewrites the paths of faults about texts into the dialect's own.
 *
 * @param pathOfText the JSON Pointer of the text with an index
 * @param pathOfAll the JSON Pointer of all texts together
 */
export async function placeTexts<Value>(
  pathOfText: (index: number) => string,
  pathOfAll: string,
  run: () => Promise<Value>,
): Promise<Value> {
  try {
    return await run();
  } catch (thrown) {
    if (!(thrown instanceof Fault) || thrown.details.fields === undefined) throw thrown;
    const fields = thrown.details.fields.map(({ path, message }) => ({
      path: path === "" ? pathOfAll : pathOfText(Number(path.slice(1))),
      message,
    }));
    throw new Fault(thrown.kind, thrown.message, { ...thrown.details, fields });
  }
}
