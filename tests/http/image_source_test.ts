// Image source: which pictures and which addresses of pictures reach an engine.
import { match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  IMAGE_TYPES,
  imageAddressMistake,
  imageDataMistake,
  type ImageType,
} from "../../src/http/image_source.ts";

const HEADS: Readonly<Record<ImageType, readonly number[]>> = {
  png: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a],
  jpeg: [0xff, 0xd8, 0xff, 0xe0],
  webp: [0x52, 0x49, 0x46, 0x46, 1, 2, 3, 4, 0x57, 0x45, 0x42, 0x50],
  gif: [0x47, 0x49, 0x46, 0x38, 0x39, 0x61],
};
const imageOf = (type: ImageType, more: readonly number[] = []) =>
  Uint8Array.from([...HEADS[type], ...more]).toBase64();

Deno.test("an image is taken for what its first bytes say and for nothing else", () => {
  for (const said of IMAGE_TYPES) {
    for (const is of IMAGE_TYPES) {
      const mistake = imageDataMistake(said, imageOf(is, [1, 2, 3]));
      if (said === is) strictEqual(mistake, undefined);
      else match(mistake ?? "", /^is no \w+ image/);
    }
  }
});

Deno.test("base64 that two decoders could read differently is refused", () => {
  const png = imageOf("png", [1, 2, 3, 4, 5]);
  strictEqual(imageDataMistake("png", imageOf("png", [1])), undefined);
  for (
    const data of [
      "",
      png.slice(0, -1),
      `${png}A`,
      `${png}=`,
      ` ${png}`,
      `${png}\n`,
      png.replace("o", "-"),
      `${png}${png}=`,
    ]
  ) {
    ok(imageDataMistake("png", data) !== undefined, data);
  }
  // Two bytes left and trailing bits that stand for nothing.
  strictEqual(imageDataMistake("gif", "R0lGODlhAA=="), undefined);
  ok(imageDataMistake("gif", "R0lGODlhAB==") !== undefined);
});

Deno.test("images of megabytes are checked to their end", () => {
  const more = new Array<number>(300_000).fill(7);
  const good = imageOf("jpeg", more);
  strictEqual(imageDataMistake("jpeg", good), undefined);
  ok(imageDataMistake("jpeg", `${good.slice(0, 200_001)}*${good.slice(200_002)}`) !== undefined);
  ok(imageDataMistake("jpeg", `${good.slice(0, 65_534)}==${good.slice(65_536)}`) !== undefined);
});

Deno.test("all that the runtime encodes is taken (property)", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
    strictEqual(imageDataMistake("gif", imageOf("gif", [...bytes])), undefined);
  }));
});

Deno.test("addresses are taken only at hosts that are allowed", () => {
  const hosts = new Set(["images.example"]);
  strictEqual(imageAddressMistake("https://images.example/a.png?b=c#d", hosts), undefined);
  match(imageAddressMistake("https://other.example/a.png", hosts) ?? "", /^is at a host/);
  match(imageAddressMistake("https://images.example.evil.example/", hosts) ?? "", /^is at a host/);
  for (
    const url of [
      "http://images.example/a.png",
      "https://images.example",
      "https://images.example:8443/a.png",
      "https://user@images.example/a.png",
      "https://evil.example\\@images.example/",
      "https://images.example\\.evil.example/",
      "https://Images.example/a.png",
      "https://images.example/a b",
      "https://images.example/\n",
      "https://[::1]/",
      "//images.example/",
      "data:image/png;base64,iVBORw0KGgo=",
      "file:///etc/passwd",
      "",
      `https://images.example/${"a".repeat(2048)}`,
    ]
  ) {
    match(imageAddressMistake(url, hosts) ?? "", /^is no plain https address/, url);
  }
});
