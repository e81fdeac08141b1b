// Body pieces: what comes of bodies that are too large, too slow, in crumbs, or broken off.
import { ok, rejects, strictEqual } from "node:assert/strict";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import { BodyPieces } from "../../../src/http/middleware/body_pieces.ts";

const BOUNDS = { bodyBytesMax: 1_000_000, bodyTimeoutMs: 60_000 };

interface Sent {
  readonly request: Request;
  cancelled: boolean;
  pulls: number;
}

/** A request whose body comes from a function; undefined ends it, and a promise may wait. */
function sent(
  give: () => Promise<Uint8Array | undefined> | Uint8Array | undefined,
  signal?: AbortSignal,
): Sent {
  const state = { cancelled: false, pulls: 0 };
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      state.pulls++;
      const piece = await give();
      if (state.cancelled) return;
      if (piece === undefined) controller.close();
      else controller.enqueue(piece);
    },
    cancel() {
      state.cancelled = true;
    },
  }, { highWaterMark: 0 });
  const request = new Request("http://x/", {
    method: "POST",
    body,
    ...(signal === undefined ? {} : { signal }),
  });
  return Object.assign(state, { request });
}

const isFault = (kind: FaultKind) => (thrown: unknown): boolean =>
  thrown instanceof Fault && thrown.kind === kind;

Deno.test("a body comes piece by piece, each when it is asked for", async () => {
  const left = [new Uint8Array(3), new Uint8Array(4)];
  const body = sent(() => left.shift());
  const pieces = new BodyPieces(body.request, BOUNDS);
  strictEqual((await pieces.next())?.length, 3);
  strictEqual(body.pulls, 1);
  strictEqual((await pieces.next())?.length, 4);
  strictEqual(await pieces.next(), undefined);
});

Deno.test("a request without a body has no pieces", async () => {
  strictEqual(await new BodyPieces(new Request("http://x/", { method: "POST" }), BOUNDS).next(), undefined);
});

Deno.test("a body is given up once it is larger than allowed", async () => {
  const body = sent(() => new Uint8Array(400_000));
  const pieces = new BodyPieces(body.request, BOUNDS);
  await pieces.next();
  await pieces.next();
  await rejects(pieces.next(), isFault("body_too_large"));
  ok(body.cancelled);
  await rejects(pieces.next(), isFault("body_too_large"));
});

Deno.test("a body is given up when a single piece does not come in time", async () => {
  const left = [new Uint8Array(3)];
  let wake = (): void => undefined;
  const body = sent(() => left.shift() ?? new Promise((resolve) => wake = () => resolve(undefined)));
  const pieces = new BodyPieces(body.request, { ...BOUNDS, bodyTimeoutMs: 20 });
  await pieces.next();
  await rejects(pieces.next(), isFault("body_timeout"));
  ok(body.cancelled);
  wake();
});

Deno.test("the time between two calls is the reader's own and does not count", async () => {
  const left = [new Uint8Array(3), new Uint8Array(3)];
  const pieces = new BodyPieces(sent(() => left.shift()).request, { ...BOUNDS, bodyTimeoutMs: 20 });
  await pieces.next();
  await new Promise((resolve) => setTimeout(resolve, 60));
  strictEqual((await pieces.next())?.length, 3);
  strictEqual(await pieces.next(), undefined);
});

Deno.test("a body in crumbs is refused, one of a thousand crumbs is not", async () => {
  let left = 1000;
  const few = new BodyPieces(sent(() => left-- > 0 ? new Uint8Array(1) : undefined).request, BOUNDS);
  let pieces = 0;
  while (await few.next() !== undefined) pieces++;
  strictEqual(pieces, 1000);
  const many = sent(() => new Uint8Array(1));
  const endless = new BodyPieces(many.request, BOUNDS);
  await rejects(async () => {
    while (await endless.next() !== undefined);
  }, isFault("request_invalid"));
  ok(many.cancelled && many.pulls < 1100);
});

Deno.test("a body that breaks off is refused; the words are others when its client left", async () => {
  const broken = sent(() => Promise.reject(new TypeError("connection reset")));
  await rejects(new BodyPieces(broken.request, BOUNDS).next(), isFault("request_invalid"));
  const controller = new AbortController();
  const left = sent(() => {
    controller.abort();
    return Promise.reject(new TypeError("connection reset"));
  }, controller.signal);
  await rejects(new BodyPieces(left.request, BOUNDS).next(), isFault("client_left"));
});

Deno.test("who ends a body decides what the read under way and later ones throw", async () => {
  let wake = (): void => undefined;
  const body = sent(() => new Promise((resolve) => wake = () => resolve(undefined)));
  const pieces = new BodyPieces(body.request, BOUNDS);
  const fault = new Fault("deadline_exceeded", "Cannot go on: it is late");
  const read = pieces.next();
  pieces.end(fault);
  pieces.end(new Fault("client_left", "Cannot go on: too late to say"));
  await rejects(read, (thrown) => thrown === fault);
  await rejects(pieces.next(), (thrown) => thrown === fault);
  ok(body.cancelled);
  wake();
});
