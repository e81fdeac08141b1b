// OIP under test: the routes of the protocol behind the real gate and before the real act; what computes is a script.
import { PLAIN_SUBJECTS } from "../../../src/audit/subject_labels.ts";
import { responseOf } from "../../support/app_under_test.ts";
import { memoryAuditTrail } from "../../../src/audit/memory_audit_trail.ts";
import { DEFAULT_CAPS } from "../../../src/access/request_caps.ts";
import type { AuditEvent } from "../../../src/audit/audit_event.ts";
import type { Engine, EngineState } from "../../../src/engines/engine.ts";
import { createEngineTable } from "../../../src/engines/engine_table.ts";
import type { TaskRequest, WholeAnswer, WholeRequest, WholeTask } from "../../../src/engines/task.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { ok as found } from "../../../src/faults/outcome.ts";
import { type App, createApp } from "../../../src/http/app.ts";
import { openInferenceDoor } from "../../../src/http/inference_door.ts";
import { rateTiers } from "../../../src/http/middleware/rate_tiers.ts";
import { challenges } from "../../../src/http/challenge.ts";
import { principalOf } from "../../access/principal_of.ts";
import { standardHeaders } from "../../../src/http/middleware/standard_headers.ts";
import { oipRoutes } from "../../../src/http/oip/oip_routes.ts";
import { openTensorDescriptions } from "../../../src/http/oip/tensor_descriptions.ts";
import { openRunInference } from "../../../src/inference/run_inference.ts";
import {
  NO_BANS,
  NO_PRESSURE,
  openAdmissionUnderTest,
  openLimiterUnderTest,
} from "../../support/limits_under_test.ts";
import type { Catalog } from "../../../src/registry/catalog.ts";
import type { ServedModel } from "../../../src/registry/served_model.ts";
import { openLog } from "../../../src/telemetry/log.ts";
import { type ManualClock, manualClock } from "../../support/manual_clock.ts";

const MODEL: ServedModel = {
  id: "m",
  aliases: [],
  capabilities: ["tensor"],
  ownedBy: "tests",
  createdSeconds: 1,
  access: { see: ["user", "auditor"], use: ["user"], teams: null },
  accepted: true,
  sha256: null,
  limits: {
    textsPerRequestMax: 64,
    charactersPerTextMax: 100,
    contextTokensMax: null,
    outputTokensMax: null,
  },
  dimensions: null,
  dimensionsReducible: false,
  passFields: [],
  prices: null,
  fallbacks: [],
};

/** The models there are. */
export const MODELS: readonly ServedModel[] = [
  { ...MODEL, id: "tensors", aliases: ["nick"] },
  { ...MODEL, id: "team/resnet:50" },
  { ...MODEL, id: "both", capabilities: ["embedding", "tensor"] },
  { ...MODEL, id: "embeds", capabilities: ["embedding"], dimensions: 2 },
  { ...MODEL, id: "embeds-here", capabilities: ["embedding"], dimensions: 2, sha256: "0".repeat(64) },
  { ...MODEL, id: "chats", capabilities: ["chat"] },
  { ...MODEL, id: "hidden", access: { see: ["admin"], use: ["admin"], teams: null } },
  { ...MODEL, id: "guarded", access: { see: ["user"], use: ["admin"], teams: null } },
];

/** What answers in the place of all engines. */
export type Compute = (request: TaskRequest, modelId: string) => unknown;

export interface OipUnderTest {
  readonly app: App;
  readonly clock: ManualClock;
  /** What reached an engine, in order. */
  readonly asked: TaskRequest[];
  readonly events: readonly AuditEvent[];
  /** The state of all engines. */
  state: EngineState;
  /** A request with this role's credential. */
  call(path: string, init?: RequestInit, role?: string): Promise<Response>;
  /** `POST /v2/models/{model}/infer`. */
  infer(model: string, body: BodyInit | null, headers?: Readonly<Record<string, string>>): Promise<Response>;
}

export const BODY_BYTES_MAX = 4096;

/** Opens one; there is nothing to close. */
export function openOipUnderTest(
  compute: Compute = () => ({ outputs: [] }),
  { bodyBytesMax = BODY_BYTES_MAX, bodyTimeoutMs = 5000 } = {},
): OipUnderTest {
  const clock = manualClock();
  const trail = memoryAuditTrail();
  const log = openLog({ level: "error", clock, sink: (bytes) => Promise.resolve(bytes.length) });
  const byName = new Map(
    MODELS.flatMap((model) => [model.id, ...model.aliases].map((name) => [name, model])),
  );
  const catalog: Catalog = { find: (name) => byName.get(name), list: () => MODELS };
  const engines = createEngineTable(MODELS.map(({ id }): Engine => ({
    modelId: id,
    state: () => test.state,
    async run<T extends WholeTask>(request: WholeRequest<T>): Promise<WholeAnswer<T>> {
      test.asked.push(request);
      return await compute(request, id) as WholeAnswer<T>;
    },
    stream: () => Promise.reject(new Fault("capability_missing", "Cannot stream: the script does not")),
    close: () => Promise.resolve(),
  })));
  const door = openInferenceDoor({
    catalog,
    runInference: openRunInference({
      catalog,
      engines,
      admission: openAdmissionUnderTest(clock),
      capsOf: () => DEFAULT_CAPS,
      log,
      clock,
    }),
    requestTimeoutMs: 60_000,
    generationTimeoutMs: 60_000,
  });
  const routes = oipRoutes({
    catalog,
    door,
    isReady: () => true,
    isModelReady: () => true,
    version: "1",
    mediaBodyBytesMax: bodyBytesMax,
    describeTensors: openTensorDescriptions({ engines, clock }),
  });
  const app = createApp({
    clock,
    log,
    trail,
    authenticate: ({ authorization }) =>
      Promise.resolve(found(principalOf(authorization === null ? [] : [authorization]))),
    proofs: { nonce: () => "", verify: () => Promise.reject(new Error("nobody proves anything here")) },
    challenge: challenges("http://127.0.0.1:8000"),
    limiter: openLimiterUnderTest(clock),
    pressure: NO_PRESSURE,
    banWatch: NO_BANS,
    rateTiers: rateTiers({
      rateAddressPerMinute: 1_000_000,
      rateSignInPerMinute: 1_000_000,
      rateTokenPerMinute: 1_000_000,
      rateUserPerMinute: 1_000_000,
    }),
    standardHeaders: standardHeaders("http://127.0.0.1:8000", []),
    bodyBounds: { bodyBytesMax: 16, bodyTimeoutMs },
    bodiesBytesMax: 1_048_576,
    allowedHosts: new Set(["127.0.0.1:8000"]),
    trustedProxies: [],
    labelAddress: (address) => address,
    subjects: PLAIN_SUBJECTS,
  }, routes);

  const call: OipUnderTest["call"] = async (path, init = {}, role = "user") => {
    const headers = new Headers(init.headers);
    headers.set("host", "127.0.0.1:8000");
    headers.set("authorization", role);
    const request = new Request(`http://127.0.0.1:8000${path}`, { ...init, headers });
    return responseOf(await app(request, { remoteAddr: { hostname: "192.0.2.1" } }));
  };
  const test: OipUnderTest = {
    app,
    clock,
    asked: [],
    events: trail.events,
    state: "ready",
    call,
    infer: (model, body, headers = { "content-type": "application/json" }) =>
      call(`/v2/models/${model}/infer`, { method: "POST", body, headers }),
  };
  return test;
}

/** A body of the binary extension, and the header that splits it. */
export function binaryBody(
  head: unknown,
  ...raws: readonly Uint8Array[]
): { readonly bytes: Uint8Array<ArrayBuffer>; readonly headers: Readonly<Record<string, string>> } {
  const json = new TextEncoder().encode(typeof head === "string" ? head : JSON.stringify(head));
  const bytes = new Uint8Array([json, ...raws].flatMap((part) => [...part]));
  return {
    bytes,
    headers: {
      "content-type": "application/octet-stream",
      "inference-header-content-length": String(json.length),
    },
  };
}

/** The two parts of an answer: its JSON as text, and the bytes behind it; undefined where it is JSON alone. */
export async function partsOf(response: Response): Promise<[json: string, raw: number[] | undefined]> {
  const bytes = await response.bytes();
  const headLength = response.headers.get("inference-header-content-length");
  const decoder = new TextDecoder("utf-8", { fatal: true });
  if (headLength === null) return [decoder.decode(bytes), undefined];
  const length = Number(headLength);
  return [decoder.decode(bytes.subarray(0, length)), [...bytes.subarray(length)]];
}
