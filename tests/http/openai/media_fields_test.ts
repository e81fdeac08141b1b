// Media fields: which images and sounds pass.
import { match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { isBase64 } from "../../../src/http/image_source.ts";
import { imageUrlMistake } from "../../../src/http/openai/media_fields.ts";

const HOSTS = new Set(["images.example", "xn--bcher-kva.example"]);

const STARTS = {
  png: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a],
  jpeg: [0xff, 0xd8, 0xff, 0xe0],
  webp: [0x52, 0x49, 0x46, 0x46, 9, 9, 9, 9, 0x57, 0x45, 0x42, 0x50],
  gif: [...new TextEncoder().encode("GIF89a")],
} as const;
type Type = keyof typeof STARTS;
const TYPES = Object.keys(STARTS) as Type[];

function dataUrl(announced: string, bytes: readonly number[]): string {
  return `data:image/${announced};base64,${new Uint8Array(bytes).toBase64()}`;
}

Deno.test("an image passes as a data URL exactly when its first bytes are of the type that the URL says", () => {
  for (const announced of TYPES) {
    for (const real of TYPES) {
      const mistake = imageUrlMistake(dataUrl(announced, [...STARTS[real], 1, 2, 3, 4]), HOSTS);
      strictEqual(mistake === undefined, announced === real, `${announced} ${real}: ${mistake}`);
    }
  }
});

Deno.test("a data URL of another type, parameter or coding is refused", () => {
  const good = dataUrl("png", STARTS.png);
  strictEqual(imageUrlMistake(good, HOSTS), undefined);
  for (
    const url of [
      good.replace("png", "svg+xml"),
      good.replace("png", "PNG"),
      good.replace("image/png", "text/html"),
      good.replace(";base64", ""),
      good.replace(";base64", ";charset=x;base64"),
      good.replace("data:", "DATA:"),
      ` ${good}`,
      good + "=",
      good + "\n",
      good.replace("=", ""),
      "data:image/png;base64,",
      "data:image/png;base64,%89PNG",
      "data:image/png;base64",
      "data:,",
    ]
  ) match(imageUrlMistake(url, HOSTS) ?? "", /^(is|has) /, url);
});

Deno.test("an https address passes only at an allowed host, written plainly", () => {
  for (
    const url of [
      "https://images.example/",
      "https://images.example/a/b.png?x=1&y=@#z",
      "https://xn--bcher-kva.example/%41",
    ]
  ) {
    strictEqual(imageUrlMistake(url, HOSTS), undefined, url);
    strictEqual(`https://${new URL(url).host}/`, url.slice(0, url.indexOf("/", 8) + 1));
  }
  for (
    const url of [
      "http://images.example/a",
      "HTTPS://images.example/a",
      "https://Images.example/a",
      "https://images.example",
      "https://images.example:443/a",
      "https://images.example:8443/a",
      "https://user@images.example/a",
      "https://user:word@images.example/a",
      "https://images.example@evil.example/a",
      "https://evil.example/images.example/",
      "https://evil.example#@images.example/",
      "https://evil.example\\@images.example/",
      "https://images.example\\evil",
      "https://images.example/a\\b",
      "https://images.example./a",
      "https://sub.images.example/a",
      "https://images.example%2eevil.example/a",
      "https://images\t.example/a",
      "https://images.example/a\nb",
      "https://images.example/ü",
      "https://bücher.example/a",
      "https:///images.example/a",
      "https:images.example/a",
      "//images.example/a",
      "file:///etc/passwd",
      "https://169.254.169.254/latest/",
      "https://[::1]/",
      `https://images.example/${"a".repeat(2048)}`,
      "",
    ]
  ) match(imageUrlMistake(url, HOSTS) ?? "", /^is /, url);
});

Deno.test("whatever address passes, the runtime's URL parser finds an allowed host, no user and no port in it", () => {
  const piece = fc.constantFrom(
    "https:",
    "//",
    "/",
    "\\",
    "@",
    ":",
    "images.example",
    "evil.example",
    "?",
    "#",
    ".",
    "%40",
    "\t",
    "443",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 7 }), (pieces) => {
      for (const url of [pieces.join(""), `https://images.example${pieces.join("")}`]) {
        if (imageUrlMistake(url, HOSTS) !== undefined) continue;
        const { protocol, hostname, username, password, port } = new URL(url);
        ok(protocol === "https:" && HOSTS.has(hostname) && username + password + port === "", url);
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("base64 passes exactly when its bytes encode to the same text again", () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 40 });
  fc.assert(fc.property(bytes, (bytes) => isBase64(bytes.toBase64())));
  const text = fc.oneof(
    fc.array(fc.constantFrom("A", "B", "Q", "/", "+", "-", "_", "=", " ", "\n", "é"), { maxLength: 9 }).map((
      all,
    ) => all.join("")),
    bytes.map((bytes) => bytes.toBase64().replace(/=+$/, "")),
  );
  fc.assert(
    fc.property(text, (text) => {
      let again: string | undefined;
      try {
        again = Uint8Array.fromBase64(text, { lastChunkHandling: "loose" }).toBase64();
      } catch {
        again = undefined;
      }
      strictEqual(isBase64(text), text !== "" && again === text, JSON.stringify(text));
    }),
    { numRuns: 1000 },
  );
});

Deno.test("long base64 is checked to its end, wherever the mistake stands", () => {
  const bytes = new Uint8Array(150_000).map((_, index) => index * 7);
  for (const length of [150_000, 149_999, 149_998, 49_152, 49_153, 98_304]) {
    const text = bytes.subarray(0, length).toBase64();
    strictEqual(isBase64(text), true, String(length));
    for (const at of [0, 65_535, 65_536, 131_071, 131_072, text.length - 9]) {
      if (at > text.length - 9) continue;
      for (const wrong of [" ", "=", "-", "A=", "AAAA="]) {
        const bad = text.slice(0, at) + wrong + text.slice(at + wrong.length);
        strictEqual(isBase64(bad), false, `${length} ${at} ${JSON.stringify(wrong)}`);
      }
    }
    strictEqual(isBase64(text + " "), false);
    strictEqual(isBase64(text.slice(0, 65_536) + "\n\n\n\n" + text.slice(65_536)), false);
  }
});
