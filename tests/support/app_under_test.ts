// The app under test: the real composition root in this process, over a folder of its own, with a stub engine that is
// named so: what is tested with it is the gate, not the model.
import { assemble, type Portcullis, type Replacements } from "../../src/assemble.ts";
import { type Config, parseConfig } from "../../src/config/config.ts";
import type { Engine, EngineState, RunBounds } from "../../src/engines/engine.ts";
import type { AnswerStream } from "../../src/engines/answer_stream.ts";
import type { ChatAnswer, ChatEvent } from "../../src/engines/chat.ts";
import type {
  Embeddings,
  StreamItem,
  StreamRequest,
  StreamTask,
  WholeAnswer,
  WholeRequest,
  WholeTask,
} from "../../src/engines/task.ts";
import { createEngineTable } from "../../src/engines/engine_table.ts";
import type { WireAnswer } from "../../src/http/answer.ts";
import { DEFAULT_TEAM } from "../../src/identity/teams.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { systemClock } from "../../src/time/clock.ts";

export const ORIGIN = "http://127.0.0.1:8000";
export const PASSWORD = "correct horse battery staple";
export const DIMENSIONS = 4;
export const MEDIA_BODY_BYTES_MAX = 2 * 1024 * 1024;

/** The models of the app under test, by who may see and use them. */
export const MODELS = {
  open: { see: ["admin", "operator", "auditor", "user"], use: ["admin", "operator", "user"] },
  guarded: { see: ["admin", "operator", "auditor", "user"], use: ["admin"] },
  hidden: { see: ["admin"], use: ["admin"] },
  broken: { see: ["admin", "operator", "auditor", "user"], use: ["admin", "operator", "user"] },
} as const;

/** An engine that computes nothing: each vector is the text's length and zeros. Its behaviour can be replaced. */
export class StubEngine implements Engine {
  readonly modelId: string;
  readonly asked: (readonly string[])[] = [];
  stateNow: EngineState = "ready";
  behave: (texts: readonly string[], bounds: RunBounds) => Promise<Embeddings> = (texts) =>
    Promise.resolve(stubEmbeddings(texts));

  constructor(modelId: string) {
    this.modelId = modelId;
  }

  state(): EngineState {
    return this.stateNow;
  }

  async run<T extends WholeTask>(request: WholeRequest<T>, bounds: RunBounds): Promise<WholeAnswer<T>> {
    this.asked.push(request.task === "embedding" ? request.texts : [request.task]);
    const answer = request.task === "embedding"
      ? await this.behave(request.texts, bounds)
      : STUB_ANSWERS[request.task];
    return answer as WholeAnswer<T>;
  }

  stream<T extends StreamTask>(request: StreamRequest<T>): Promise<AnswerStream<StreamItem<T>>> {
    this.asked.push([request.task]);
    const batches = [request.task === "speech" ? [new Uint8Array([1, 2, 3])] : STUB_EVENTS];
    return Promise.resolve({
      ...(request.task === "speech" ? { mediaType: "audio/mpeg" } : {}),
      next: () => Promise.resolve(batches.shift() as readonly StreamItem<T>[] | undefined),
      cancel: () => {
        batches.length = 0;
      },
    });
  }

  close(): Promise<void> {
    this.stateNow = "closed";
    return Promise.resolve();
  }
}

const STUB_USAGE = { inputTokens: 3, outputTokens: 2, countedBy: "engine" } as const;
const STUB_TEXT: ChatAnswer = {
  choices: [{ text: "stub answer", reasoning: "", toolCalls: [], finish: "stop" }],
  usage: STUB_USAGE,
};
const STUB_TENSOR = { name: "y", datatype: "FP32", shape: [1], data: { json: [0.5] } } as const;

/** What a stub answers to all tasks but embeddings. */
const STUB_ANSWERS: { readonly [T in Exclude<WholeTask, "embedding">]: WholeAnswer<T> } = {
  chat: STUB_TEXT,
  completion: STUB_TEXT,
  rerank: { results: [{ index: 0, score: 0.5 }], usage: STUB_USAGE },
  moderation: {
    results: [{ flagged: false, categories: { violence: false }, scores: { violence: 0.1 } }],
    usage: STUB_USAGE,
  },
  transcription: { content: { json: { text: "stub answer" } }, usage: STUB_USAGE },
  image: { createdSeconds: 1, images: [{ base64: "aGk=" }], usage: STUB_USAGE },
  tensor: { outputs: [STUB_TENSOR] },
  tensor_metadata: {
    platform: "stub",
    inputs: [{ name: "x", datatype: "FP32", shape: [-1] }],
    outputs: [{ name: "y", datatype: "FP32", shape: [-1] }],
  },
};

const STUB_EVENTS: readonly ChatEvent[] = [
  { type: "text", choice: 0, text: "stub " },
  { type: "text", choice: 0, text: "answer" },
  { type: "finish", choice: 0, reason: "stop" },
  { type: "usage", usage: STUB_USAGE },
];

/** Models of upstreams, whose place the stub takes: one that does all that OpenAI's protocol has, and one of tensors. */
const UPSTREAMS = [
  { name: "stub", kind: "openai", url: "http://127.0.0.1:9/v1" },
  { name: "stub-tensors", kind: "openinference", url: "http://127.0.0.1:9" },
];
const UPSTREAM_MODELS = [
  {
    id: "generalist",
    aliases: ["any/model:1"],
    capabilities: [
      "chat",
      "completion",
      "embedding",
      "rerank",
      "moderation",
      "speech",
      "transcription",
      "image",
    ],
    servedBy: [{ upstream: "stub" }],
    passFields: ["top_k"],
    outputTokensMax: 1000,
    use: ["admin", "operator", "user"],
  },
  { id: "tensors", capabilities: ["tensor"], servedBy: [{ upstream: "stub-tensors" }] },
];

/** What a stub embeds to: a token a word. */
export function stubEmbeddings(texts: readonly string[]): Embeddings {
  const vectors = new Float32Array(texts.length * DIMENSIONS);
  texts.forEach((text, index) => vectors[index * DIMENSIONS] = text.length);
  const inputTokens = texts.reduce((sum, text) => sum + text.split(" ").length, 0);
  return { vectors, dimensions: DIMENSIONS, usage: { inputTokens, outputTokens: 0, countedBy: "engine" } };
}

export interface AppUnderTest {
  readonly portcullis: Portcullis;
  readonly config: Config;
  readonly folder: string;
  readonly engines: ReadonlyMap<string, StubEngine>;
  /** The lines of the log so far, parsed. */
  logLines(): Record<string, unknown>[];
  /** The events of the trail on disk so far. */
  auditEvents(): Record<string, unknown>[];
  /** One request from an address, by default with the Host header that belongs to it. */
  call(path: string, init?: RequestInit & { readonly from?: string }): Promise<Response>;
  /** A token of a user with these roles; the user is made when there is none. */
  tokenFor(...roles: string[]): Promise<string>;
  close(): Promise<void>;
}

/** Opens one. Settings are those of the environment, without their prefix's meaning: `PORTCULLIS_…` to text. */
export async function openAppUnderTest(
  variables: Record<string, string> = {},
  replacements: Replacements = {},
): Promise<AppUnderTest> {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-app-" });
  await writeModels(`${folder}/models`);
  const parsed = parseConfig({
    variables: {
      PORTCULLIS_DATA_DIR: `${folder}/data`,
      PORTCULLIS_MODELS_DIR: `${folder}/models`,
      PORTCULLIS_ADMIN_PASSWORD: PASSWORD,
      PORTCULLIS_RATE_ADDRESS_PER_MINUTE: "1000000",
      PORTCULLIS_RATE_SIGN_IN_PER_MINUTE: "1000000",
      PORTCULLIS_RATE_TOKEN_PER_MINUTE: "1000000",
      PORTCULLIS_RATE_USER_PER_MINUTE: "1000000",
      PORTCULLIS_REQUESTS_AT_ONCE_PER_USER: "1000000",
      PORTCULLIS_BANS: JSON.stringify({ enabled: false }),
      PORTCULLIS_UPSTREAMS: JSON.stringify(UPSTREAMS),
      PORTCULLIS_UPSTREAM_MODELS: JSON.stringify(UPSTREAM_MODELS),
      PORTCULLIS_MEDIA_BODY_BYTES_MAX: String(MEDIA_BODY_BYTES_MAX),
      PORTCULLIS_UPLOAD_BYTES_MAX: String(MEDIA_BODY_BYTES_MAX),
      ...variables,
    },
    file: undefined,
    cores: 2,
    storeExists: () => false,
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.mistakes));
  const { config } = parsed;
  const logText: string[] = [];
  const decoder = new TextDecoder();
  const log = openLog({
    level: "debug",
    clock: systemClock,
    sink: (bytes) => {
      logText.push(decoder.decode(bytes));
      return Promise.resolve(bytes.length);
    },
  });
  const ids = [...Object.keys(MODELS), ...UPSTREAM_MODELS.map(({ id }) => id)];
  const engines = new Map(ids.map((id) => [id, new StubEngine(id)]));
  const portcullis = await assemble(config, {
    log,
    engines: createEngineTable([...engines.values()]),
    ...replacements,
  });
  const tokens = new Map<string, string>();

  const call: AppUnderTest["call"] = async (path, { from = "192.0.2.1", ...init } = {}) => {
    const headers = new Headers(init.headers);
    if (!headers.has("host")) headers.set("host", "127.0.0.1:8000");
    // As clients send what they have as a whole.
    if (typeof init.body === "string" && !headers.has("content-length")) {
      headers.set("content-length", String(new TextEncoder().encode(init.body).length));
    }
    const request = new Request(`${ORIGIN}${path}`, { ...init, headers });
    return responseOf(await portcullis.app(request, { remoteAddr: { hostname: from } }));
  };
  return {
    portcullis,
    config,
    folder,
    engines,
    call,
    logLines: () =>
      logText.join("").split("\n").filter((line) => line !== "").map((line) => JSON.parse(line)),
    auditEvents: () => readAuditEvents(`${folder}/data/audit`),
    async tokenFor(...roles) {
      const username = `test-${roles.join("-")}`;
      const known = tokens.get(username);
      if (known !== undefined) return known;
      await portcullis.identity.users.create({ username, password: PASSWORD, roles, team: DEFAULT_TEAM });
      const response = await call("/v1/auth/login", postJson({ username, password: PASSWORD }));
      const { access_token: token } = await response.json();
      tokens.set(username, token);
      return token;
    },
    async close() {
      await portcullis.close("test ended");
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** What a client would have of an answer. Nothing is read before the client takes it, as the listener has it. */
export function responseOf({ status, headers, body }: WireAnswer): Response {
  if (body === null || typeof body === "string" || body instanceof Uint8Array) {
    return new Response(body, { status, headers });
  }
  const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const pieces = await body.next();
        if (pieces === undefined) controller.close();
        else for (const piece of pieces) controller.enqueue(piece as Uint8Array<ArrayBuffer>);
      } catch (thrown) {
        controller.error(thrown);
      }
    },
    cancel: () => body.cancel(),
  }, { highWaterMark: 0 });
  return new Response(stream, { status, headers });
}

/** The options of a POST with a JSON body. */
export function postJson(body: unknown, token?: string): RequestInit {
  const authorization: Record<string, string> = token === undefined
    ? {}
    : { authorization: `Bearer ${token}` };
  return {
    method: "POST",
    headers: { "content-type": "application/json", ...authorization },
    body: typeof body === "string" ? body : JSON.stringify(body),
  };
}

/** The options of a GET by a caller. */
export function getAs(token: string): RequestInit {
  return { headers: { authorization: `Bearer ${token}` } };
}

/** The events of a trail's folder, in order. */
export function readAuditEvents(folder: string): Record<string, unknown>[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".jsonl"))
    .sort()
    .flatMap((name) => Deno.readTextFileSync(`${folder}/${name}`).split("\n").filter((line) => line !== ""))
    // The first line of a segment is its header.
    .flatMap((line) => JSON.parse(line).event ?? []);
}

async function writeModels(folder: string): Promise<void> {
  for (const [id, access] of Object.entries(MODELS)) {
    await Deno.mkdir(`${folder}/${id}`, { recursive: true });
    const bytes = new TextEncoder().encode(`not a graph: ${id}`);
    const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
    await Deno.writeFile(`${folder}/${id}/graph.onnx`, id === "broken" ? bytes.with(0, 0) : bytes);
    await Deno.writeFile(`${folder}/${id}/vocabulary.json`, bytes);
    const artefact = { sha256, bytes: bytes.length };
    const card = {
      id,
      task: "embedding",
      name: id,
      description: "",
      license: "Apache-2.0",
      source: "test",
      createdSeconds: 1,
      artefacts: {
        graph: { file: "graph.onnx", ...artefact },
        vocabulary: { file: "vocabulary.json", ...artefact },
      },
      dimensions: DIMENSIONS,
      dimensionsReducible: id === "guarded",
      limits: {
        textsPerRequestMax: 8,
        charactersPerTextMax: 100,
        tokensPerTextMax: 50,
        tokensPerRequestMax: 200,
      },
      access,
    };
    await Deno.writeTextFile(`${folder}/${id}/card.json`, JSON.stringify(card));
  }
}
