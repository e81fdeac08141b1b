// Open Inference wire: tensors and embeddings over the Open Inference Protocol, version 2, REST.
import { Fault } from "../../../faults/fault.ts";
import type { WholeRequest } from "../../task.ts";
import type { WholeCall, Wire } from "../wire.ts";
import { embeddingCall } from "./embeddings_wire.ts";
import { tensorCall, tensorMetadataCall } from "./tensors_wire.ts";

/** The wire of Triton, KServe, OpenVINO Model Server and other Portcullis; the base address ends before `/v2`. */
export const openinferenceWire: Wire = {
  kind: "openinference",
  healthPath: "/v2/health/ready",
  credentialHeaders: (key) => ({ authorization: `Bearer ${key}` }),
  whole(request, { model }) {
    const asked: WholeRequest = request;
    switch (asked.task) {
      case "tensor":
        return tensorCall(asked, model) as WholeCall<never>;
      case "tensor_metadata":
        return tensorMetadataCall(model) as WholeCall<never>;
      case "embedding":
        return embeddingCall(asked, model) as WholeCall<never>;
      default:
        throw taskMissing();
    }
  },
  stream() {
    throw taskMissing();
  },
};

function taskMissing(): Fault {
  return new Fault(
    "capability_missing",
    "Cannot ask an Open Inference server for this task: it runs tensors",
  );
}
