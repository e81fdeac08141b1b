// Embeddings on the wire: texts as a BYTES tensor called "text", vectors as the first FP32 output (Open Inference Protocol).
import { Fault } from "../../../faults/fault.ts";
import type { EmbeddingRequest } from "../../task.ts";
import { readFloat32 } from "../../tensor_data.ts";
import { answerInvalid } from "../answer_json.ts";
import type { WholeCall } from "../wire.ts";
import { inferRequest, readInferAnswer } from "./tensors_wire.ts";

const INPUT = "text";

/**
 * An embedding, for models that take texts as they stand; other Portcullis do.
 *
 * @throws Fault `fields_invalid` where a length of vectors is asked for: the protocol has no word for it
 */
export function embeddingCall(
  { texts, dimensions }: EmbeddingRequest,
  model: string,
): WholeCall<"embedding"> {
  if (dimensions !== undefined) {
    throw new Fault("fields_invalid", "Cannot ask an Open Inference server for vectors of another length", {
      fields: [{ path: "/dimensions", message: "is nothing that the engine behind this model can be told" }],
    });
  }
  return {
    request: inferRequest({
      task: "tensor",
      inputs: [{ name: INPUT, datatype: "BYTES", shape: [texts.length], data: { json: texts } }],
      outputs: [],
      // JSON can be had of every server of the protocol.
      binaryOutputs: false,
    }, model),
    read(answer) {
      const output = readInferAnswer(answer).outputs.find(({ datatype }) => datatype === "FP32");
      if (output === undefined) throw answerInvalid("it has no FP32 output");
      const [rows, length = 0] = output.shape;
      if (output.shape.length !== 2 || rows !== texts.length || length === 0) {
        throw answerInvalid("its FP32 output has no vector for each text");
      }
      return {
        vectors: readFloat32(output),
        dimensions: length,
        // The protocol tells no tokens.
        usage: { inputTokens: 0, outputTokens: 0, countedBy: "estimate" },
      };
    },
  };
}
