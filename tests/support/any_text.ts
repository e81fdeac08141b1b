// Any text: an arbitrary of well-formed strings from all of Unicode, controls and astral characters included.
import fc from "fast-check";

/** Like fast-check's unit "binary", which takes a second to prepare. */
export const anyText: fc.Arbitrary<string> = fc.array(
  fc.oneof(
    fc.integer({ min: 0, max: 0xff }),
    fc.integer({ min: 0, max: 0xd7ff }),
    fc.integer({ min: 0xe000, max: 0x10ffff }),
  )
    .map((codePoint) => String.fromCodePoint(codePoint)),
  { maxLength: 20 },
).map((characters) => characters.join(""));
