// Tensor descriptions: what the upstreams say of their models' tensors, asked for at most once in some seconds.
import type { EngineTable } from "../../engines/engine_table.ts";
import type { TensorMetadata } from "../../engines/tensor.ts";
import { Fault } from "../../faults/fault.ts";
import type { ServedModel } from "../../registry/served_model.ts";
import type { Clock } from "../../time/clock.ts";

/**
 * What a model takes and gives, by its own engine's word and never by that of one that stands in for it. It runs nothing: to
 * read of a model is enough.
 *
 * @throws Fault `unavailable` · `overloaded` · `deadline_exceeded` · `stopping` · those of upstreams
 */
export type DescribeTensors = (model: ServedModel) => Promise<TensorMetadata>;

/** How long an answer is good for; models change with a restart of the upstream. */
const FRESH_MS = 10_000;
/** How long a failure is: many who ask for a model that is away are one question a second. */
const FAILURE_FRESH_MS = 1000;
const TIMEOUT_MS = 5000;

interface Description {
  readonly answer: Promise<TensorMetadata>;
  freshUntilMs: number;
}

/** Opens the asking over the engines. It keeps as many answers as there are models. */
export function openTensorDescriptions(parts: {
  readonly engines: Pick<EngineTable, "get">;
  readonly clock: Clock;
}): DescribeTensors {
  const { engines, clock } = parts;
  const descriptions = new Map<string, Description>();

  async function ask({ id }: ServedModel): Promise<TensorMetadata> {
    const engine = engines.get(id);
    if (engine?.state() !== "ready") {
      throw new Fault("unavailable", `Cannot describe ${id}: its engine is not ready`, {
        detail: "The model is not ready.",
        retryAfterSeconds: 2,
      });
    }
    return await engine.run<"tensor_metadata">({ task: "tensor_metadata" }, {
      // Whoever asked first may leave; others wait for the same answer.
      signal: new AbortController().signal,
      deadlineMs: clock.monotonic() + TIMEOUT_MS,
      trace: { servedBy: null, attempts: 0 },
    });
  }

  return (model) => {
    const known = descriptions.get(model.id);
    if (known !== undefined && clock.monotonic() < known.freshUntilMs) return known.answer;
    const description: Description = { answer: ask(model), freshUntilMs: Infinity };
    const settle = (freshMs: number) => (): void => {
      description.freshUntilMs = clock.monotonic() + freshMs;
    };
    description.answer.then(settle(FRESH_MS), settle(FAILURE_FRESH_MS));
    descriptions.set(model.id, description);
    return description.answer;
  };
}
