// Multipart: what is read of bodies as clients write them, however they are split, and what is refused.
import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import {
  boundaryOf,
  MultipartReader,
  requireMultipartAnnounced,
} from "../../../src/http/middleware/multipart.ts";

const latin1 = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const text = (bytes: Uint8Array): string => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");

function sourceOf(pieces: Iterable<Uint8Array>): () => Promise<Uint8Array | undefined> {
  const left = pieces[Symbol.iterator]();
  return () => Promise.resolve(left.next().value);
}

/** Pieces of these lengths, over and over. */
function* split(bytes: Uint8Array, lengths: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const length = lengths[turn % lengths.length] ?? 1;
    yield bytes.subarray(at, at + length);
    at += Math.max(length, lengths.every((each) => each === 0) ? 1 : length);
  }
}

/** Each part as its head and its bytes, as Latin-1. */
async function readAll(boundary: string, pieces: Iterable<Uint8Array>): Promise<[unknown, string][]> {
  const reader = new MultipartReader(boundary, sourceOf(pieces));
  const parts: [unknown, string][] = [];
  for (let head = await reader.nextPart(); head !== undefined; head = await reader.nextPart()) {
    let body = "";
    for (let piece = await reader.nextPiece(); piece !== undefined; piece = await reader.nextPiece()) {
      ok(piece.length > 0);
      body += text(piece);
    }
    parts.push([head, body]);
  }
  return parts;
}

/** What comes of a body: its parts, or the words of the refusal. */
async function outcomeOf(boundary: string, pieces: Iterable<Uint8Array>): Promise<unknown> {
  try {
    return await readAll(boundary, pieces);
  } catch (thrown) {
    ok(thrown instanceof Fault, String(thrown));
    strictEqual(thrown.kind, "request_invalid");
    return thrown.details.detail;
  }
}

const part = (headers: string, body: string): string => `--b\r\n${headers}\r\n\r\n${body}\r\n`;
const field = (name: string, body: string): string =>
  part(`Content-Disposition: form-data; name="${name}"`, body);
const refusedWith = (state: string): string => `The body is no valid multipart/form-data: ${state}.`;

Deno.test("a form is read part by part, with names, file names and media types", async () => {
  const body = field("model", "whisper") +
    part(
      'content-disposition: form-data; name="file"; filename="a.wav"\r\nCONTENT-TYPE: Audio/WAV; x=y\r\nX-Other: 1',
      "RIFF\r\n--\r\n--c\r\n",
    ) + field("empty", "") + "--b--\r\n";
  deepStrictEqual(await readAll("b", [latin1(body)]), [
    [{ name: "model" }, "whisper"],
    [{ name: "file", fileName: "a.wav", mediaType: "audio/wav" }, "RIFF\r\n--\r\n--c\r\n"],
    [{ name: "empty" }, ""],
  ]);
});

Deno.test("a form may end without a line end and may have no parts", async () => {
  deepStrictEqual(await readAll("b", [latin1(field("a", "1") + "--b--")]), [[{ name: "a" }, "1"]]);
  deepStrictEqual(await readAll("b", [latin1("--b--\r\n")]), []);
});

Deno.test("a part that is left unread is skipped", async () => {
  const reader = new MultipartReader(
    "b",
    sourceOf([latin1(field("a", "1".repeat(500)) + field("c", "2") + "--b--")]),
  );
  await reader.nextPart();
  deepStrictEqual(await reader.nextPart(), { name: "c" });
  strictEqual(await reader.text(), "2");
});

Deno.test("a body of Deno's FormData is read as it was written", async () => {
  const form = new FormData();
  form.append("model", 'm\r\nö\\"');
  form.append(
    "file",
    new File([Uint8Array.of(0, 255, 13, 10, 45, 45)], 'sö"ng.\\wav', { type: "audio/wav" }),
  );
  const request = new Request("http://x/", { method: "POST", body: form });
  const boundary = boundaryOf(request.headers.get("content-type") ?? "");
  const parts = await readAll(boundary, [new Uint8Array(await request.arrayBuffer())]);
  deepStrictEqual(parts[0]?.[1], text(new TextEncoder().encode('m\r\nö\\"')));
  deepStrictEqual(parts[1], [
    { name: "file", fileName: 'sö"ng.\\wav', mediaType: "audio/wav" },
    "\x00\xff\r\n--",
  ]);
});

Deno.test("names and file names are read as browsers, curl and .NET write them", async () => {
  const heads: readonly (readonly [string, unknown])[] = [
    ['form-data; name="a%22b"', { name: 'a"b' }],
    ['form-data; name="a\\"b\\\\c"', { name: 'a"b\\c' }],
    ['form-data; name="a"; filename="C:\\new\\x.wav"', { name: "a", fileName: "C:\\new\\x.wav" }],
    ["form-data; name=a; filename=x.wav; filename*=utf-8''y.mp3", { name: "a", fileName: "x.wav" }],
    ['FORM-DATA;name="a";filename=""', { name: "a", fileName: "" }],
    ['form-data; name="a;b=c"', { name: "a;b=c" }],
  ];
  for (const [disposition, head] of heads) {
    deepStrictEqual(
      await outcomeOf("b", [latin1(part(`Content-Disposition: ${disposition}`, "") + "--b--")]),
      [
        [head, ""],
      ],
    );
  }
});

Deno.test("a body is refused that breaks the format, with words that say where", async () => {
  const disposition = 'Content-Disposition: form-data; name="a"';
  const refused: readonly (readonly [string, string])[] = [
    ["", "it ends before its closing boundary"],
    [field("a", "1"), "it ends before its closing boundary"],
    [field("a", "1") + "--b", "it ends before its closing boundary"],
    [field("a", "1") + "--b-", "it ends before its closing boundary"],
    [field("a", "1") + "--b--\r", "something follows its closing boundary"],
    [field("a", "1") + "--b--\n", "something follows its closing boundary"],
    [field("a", "1") + "--b--\r\n\r\n", "something follows its closing boundary"],
    [field("a", "1") + "--b--\r\nepilogue", "something follows its closing boundary"],
    [field("a", "1") + "--b--" + field("a", "1"), "something follows its closing boundary"],
    ["preamble\r\n" + field("a", "1") + "--b--", "it does not begin with its boundary"],
    ["\r\n" + field("a", "1") + "--b--", "it does not begin with its boundary"],
    ["--c\r\n" + disposition + "\r\n\r\n1\r\n--c--", "it does not begin with its boundary"],
    [
      "--b \r\n" + disposition + "\r\n\r\n1\r\n--b--",
      "a boundary is followed by something else than a line end",
    ],
    ["--b\n" + disposition + "\n\n1\n--b--", "a boundary is followed by something else than a line end"],
    [field("a", "x\r\n--bX"), "a boundary is followed by something else than a line end"],
    [part("", "1") + "--b--", "a part has a malformed header line"],
    [part("Content-Type: text/plain", "1") + "--b--", "a part has no Content-Disposition"],
    [part(`${disposition}\r\n folded`, "1") + "--b--", "a part has a malformed header line"],
    [part(`${disposition}\nX: y`, "1") + "--b--", "a part has a malformed header line"],
    [part(`${disposition}\r\nX : y`, "1") + "--b--", "a part has a malformed header line"],
    [part(`${disposition}\r\n--b: y`, "1") + "--b--", "a part has a malformed header line"],
    [part(`${disposition}\r\nX: \0`, "1") + "--b--", "a part has a malformed header line"],
    [part(`${disposition}\r\nX: \xff`, "1") + "--b--", "a part is not UTF-8"],
    [part(`${disposition}\r\n${disposition}`, "1") + "--b--", "a part has a header twice"],
    [part(`${disposition}\r\nContent-Type: a`, "1") + "--b--", "a part has a malformed Content-Type"],
    [
      part(`${disposition}\r\nContent-Transfer-Encoding: base64`, "1") + "--b--",
      "a part has a transfer encoding",
    ],
    ...[
      'form-data; name="a',
      "attachment; name=a",
      "form-data",
      "form-data; filename=x",
      "form-data; name=a; name=b",
    ]
      .concat([
        'form-data; name="a"; x=y',
        'form-data; name="a";',
        'form-data; name = "a"',
        'form-data name="a"',
      ])
      .concat(["form-data; name*=utf-8''a", 'form-data; name="a"b', 'form-data; name="a\\"'])
      .map((value) =>
        [
          part(`Content-Disposition: ${value}`, "1") + "--b--",
          "a part has a malformed Content-Disposition",
        ] as const
      ),
    [
      part(disposition + Array.from({ length: 16 }, (_, at) => `\r\nX-${at}: y`).join(""), "1"),
      "a part has too many header lines",
    ],
    [part(`${disposition}\r\nX: ${"y".repeat(8192)}`, "1"), "a part has headers of more than 8192 bytes"],
    [`--b\r\n${disposition}\r\nX: ${"y".repeat(100_000)}`, "a part has headers of more than 8192 bytes"],
    [field("a", "1").repeat(33), "it has more than 32 parts"],
  ];
  for (const [body, state] of refused) {
    strictEqual(await outcomeOf("b", [latin1(body)]), refusedWith(state), JSON.stringify(body.slice(0, 200)));
  }
});

Deno.test("transfer encodings that change nothing are let pass", async () => {
  for (const encoding of ["binary", "8bit", "7BIT"]) {
    const body =
      part(`Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: ${encoding}`, "1") + "--b--";
    deepStrictEqual(await outcomeOf("b", [latin1(body)]), [[{ name: "a" }, "1"]]);
  }
});

Deno.test("the text of a part is strict UTF-8 of at most 64 KiB", async () => {
  const read = async (value: Uint8Array): Promise<string> => {
    const whole = [
      latin1(part("Content-Disposition: form-data; name=a", "").slice(0, -2)),
      value,
      latin1("\r\n--b--"),
    ];
    const reader = new MultipartReader("b", sourceOf(whole));
    await reader.nextPart();
    return await reader.text();
  };
  strictEqual(await read(new TextEncoder().encode("grüße")), "grüße");
  strictEqual((await read(new Uint8Array(65_536).fill(0x61))).length, 65_536);
  const detail = (state: string) => (thrown: Fault): boolean => thrown.details.detail === refusedWith(state);
  await rejects(
    read(new Uint8Array(65_537).fill(0x61)),
    detail("a part that is no file has more than 65536 bytes"),
  );
  await rejects(read(Uint8Array.of(0xc3, 0x28)), detail("a part that is no file is not valid UTF-8"));
});

/** Bodies that are close to the grammar: pieces of it, in any order, and noise. */
const likeAForm = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.constantFrom("--b", "--b\r\n", "\r\n--b\r\n", "\r\n--b--", "\r\n", "\r", "\n", "--", "-"),
    },
    {
      weight: 4,
      arbitrary: fc.constantFrom('Content-Disposition: form-data; name="a"', "\r\n\r\n", "x", ": ", "\r\n--"),
    },
    { weight: 2, arbitrary: fc.constantFrom(field("a", "1"), field("c", "\r\n--\r\n"), "--b--\r\n") },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 8 }).map(text) },
  ),
  { maxLength: 24 },
).map((pieces) => latin1(pieces.join("")));

const lengths = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 6 })
  .filter((all) => all.some((length) => length > 0));

Deno.test("every split of any bytes gives the same parts or the same refusal, and nothing but Faults", () =>
  fc.assert(
    fc.asyncProperty(
      fc.oneof(likeAForm, fc.uint8Array({ maxLength: 200 })),
      lengths,
      async (bytes, lengths) => {
        const whole = await outcomeOf("b", [bytes]);
        deepStrictEqual(await outcomeOf("b", split(bytes, lengths)), whole);
        deepStrictEqual(await outcomeOf("b", split(bytes, [1])), whole);
      },
    ),
    { numRuns: 400 },
  ));

Deno.test("what any parts hold comes back, whatever the boundary and the split", () => {
  const boundaries = fc.string({
    unit: fc.constantFrom(..."ab'()+_,-./:=?"),
    minLength: 1,
    maxLength: 70,
  });
  const nearBoundary = fc.array(fc.constantFrom("\r", "\n", "-", "a", "b", "\r\n--", "\r\n--a", "\0"), {
    maxLength: 40,
  })
    .map((pieces) => latin1(pieces.join("")));
  return fc.assert(
    fc.asyncProperty(
      boundaries,
      fc.array(nearBoundary, { maxLength: 4 }),
      lengths,
      async (boundary, bodies, lengths) => {
        fc.pre(bodies.every((body) => !`\r\n${text(body)}\r\n--`.slice(0, -2).includes(`\r\n--${boundary}`)));
        const form =
          bodies.map((body, at) =>
            `--${boundary}\r\nContent-Disposition: form-data; name="${at}"\r\n\r\n${text(body)}\r\n`
          ).join("") + `--${boundary}--\r\n`;
        // A body may begin with what makes a boundary of the line end before it.
        fc.pre(form.split(`\r\n--${boundary}`).length - 1 === bodies.length);
        deepStrictEqual(
          await readAll(boundary, split(latin1(form), lengths)),
          bodies.map((body, at) => [{ name: String(at) }, text(body)]),
        );
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("pieces are handed on as they come: nothing of a part is held but what may begin a boundary", async () => {
  let given = 0;
  const pieces = [
    latin1(part("Content-Disposition: form-data; name=a", "").slice(0, -2)),
    latin1("one\r\n-"),
    latin1("two"),
  ];
  const reader = new MultipartReader("b", () => Promise.resolve(pieces[given++]));
  await reader.nextPart();
  strictEqual(given, 1);
  strictEqual(text(await reader.nextPiece() ?? latin1("")), "one");
  strictEqual(given, 2);
  strictEqual(text(await reader.nextPiece() ?? latin1("")), "\r\n-two");
});

function announced(headers: Record<string, string>): Request {
  return new Request("http://x/", { method: "POST", headers });
}

Deno.test("boundaries are read as RFC 2046 and clients have them, and nothing else", () => {
  const read: readonly (readonly [string, string])[] = [
    ["multipart/form-data; boundary=abc", "abc"],
    ['Multipart/Form-Data;BOUNDARY="a b(c)"', "a b(c)"],
    [
      "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
      "----WebKitFormBoundary7MA4YWxkTrZu0gW",
    ],
    ["multipart/form-data; charset=UTF-8; boundary=x", "x"],
    ["multipart/form-data; boundary=x;charset=utf-8", "x"],
    [`multipart/form-data; boundary=${"x".repeat(70)}`, "x".repeat(70)],
  ];
  for (const [header, boundary] of read) strictEqual(boundaryOf(header), boundary);
  const refused = [
    "multipart/form-data",
    "multipart/form-data; boundary=",
    'multipart/form-data; boundary=""',
    'multipart/form-data; boundary="a "',
    'multipart/form-data; boundary="a',
    "multipart/form-data; boundary=a b",
    "multipart/form-data; boundary=a; boundary=b",
    `multipart/form-data; boundary=${"x".repeat(71)}`,
    'multipart/form-data; boundary="a\\"b"',
    "multipart/form-data; boundary=ä",
    "multipart/form-data; boundary=a; charset=utf-16",
  ];
  for (const header of refused) {
    throws(() => boundaryOf(header), (thrown: Fault) => thrown.kind === "request_invalid", header);
  }
});

Deno.test("a body is refused by its headers before anything is read", () => {
  const type = "multipart/form-data; boundary=b";
  const bounds = { bodyBytesMax: 100, bodyTimeoutMs: 1000 };
  requireMultipartAnnounced(announced({ "content-type": type, "content-length": "100" }), bounds);
  const refused: readonly (readonly [Record<string, string>, FaultKind])[] = [
    [{}, "media_type_unsupported"],
    [{ "content-type": "application/json" }, "media_type_unsupported"],
    [{ "content-type": "multipart/mixed; boundary=b" }, "media_type_unsupported"],
    [{ "content-type": type, "content-encoding": "gzip" }, "media_type_unsupported"],
    [{ "content-type": "multipart/form-data" }, "request_invalid"],
    [{ "content-type": type, "content-length": "101" }, "body_too_large"],
  ];
  for (const [headers, kind] of refused) {
    throws(
      () => requireMultipartAnnounced(announced(headers), bounds),
      (thrown: Fault) => thrown.kind === kind,
    );
  }
});
