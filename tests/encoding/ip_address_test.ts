// Tests of IP addresses: one host has one form, and what two readers could read differently is refused.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  type AddressBytes,
  clientNetwork,
  formatAddress,
  parseAddress,
  parseAddressRange,
  rangeHolds,
} from "../../src/encoding/ip_address.ts";

function bytesOf(text: string): AddressBytes {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw new Error(`${text} is refused`);
  return parsed.value;
}

function holds(range: string, address: string): boolean {
  const parsed = parseAddressRange(range);
  if (!parsed.ok) throw new Error(`${range} is refused`);
  return rangeHolds(parsed.value, bytesOf(address));
}

Deno.test("RFC 4291 §2.2: the forms of one IPv6 address all give the same text", () => {
  for (
    const [form, text] of [
      ["ABCD:EF01:2345:6789:ABCD:EF01:2345:6789", "abcd:ef01:2345:6789:abcd:ef01:2345:6789"],
      ["2001:DB8:0:0:8:800:200C:417A", "2001:db8:0:0:8:800:200c:417a"],
      ["2001:DB8::8:800:200C:417A", "2001:db8:0:0:8:800:200c:417a"],
      ["2001:0db8:0000:0000:0008:0800:200c:417a", "2001:db8:0:0:8:800:200c:417a"],
      ["FF01::101", "ff01:0:0:0:0:0:0:101"],
      ["::1", "0:0:0:0:0:0:0:1"],
      ["::", "0:0:0:0:0:0:0:0"],
      ["1::", "1:0:0:0:0:0:0:0"],
      ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
      ["::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"],
      ["::13.1.68.3", "0:0:0:0:0:0:d01:4403"],
      ["64:ff9b::192.0.2.33", "64:ff9b:0:0:0:0:c000:221"],
      ["1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"],
    ] as const
  ) strictEqual(formatAddress(bytesOf(form)), text, form);
});

Deno.test("RFC 5952 §5: an IPv4-mapped address is the IPv4 address, however it is written", () => {
  for (
    const form of [
      "192.0.2.1",
      "::ffff:192.0.2.1",
      "::FFFF:c000:201",
      "0:0:0:0:0:ffff:192.0.2.1",
      "0000:0000:0000:0000:0000:ffff:192.0.2.1",
    ]
  ) strictEqual(formatAddress(bytesOf(form)), "192.0.2.1", form);
  strictEqual(formatAddress(bytesOf("::fffe:192.0.2.1")), "0:0:0:0:0:fffe:c000:201");
  strictEqual(formatAddress(bytesOf("1::ffff:192.0.2.1")), "1:0:0:0:0:ffff:c000:201");
});

Deno.test("what is no address is refused: leading zeros, short forms, other bases, zones, ports, white space", () => {
  for (
    const text of [
      "",
      " ",
      "1",
      "1.2.3",
      "1.2.3.4.5",
      "1.2.3.",
      ".1.2.3",
      "1..2.3",
      "256.0.0.1",
      "999.0.0.1",
      "01.2.3.4",
      "1.2.3.04",
      "1.2.3.00",
      "0x7f.0.0.1",
      "0177.0.0.1",
      "2130706433",
      "127.1",
      "1.2.3.4 ",
      " 1.2.3.4",
      "1.2.3.4\n",
      "1.2.3.4:80",
      "1.2.3.4/8",
      "-1.2.3.4",
      "+1.2.3.4",
      "１.2.3.4",
      "localhost",
      ":",
      ":::",
      "::1::",
      "1::2::3",
      ":1",
      "1:",
      ":1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1:2:3:4:5:6:7:8::",
      "::1:2:3:4:5:6:7:8",
      "12345::",
      "g::",
      "::ffff:1.2.3",
      "::ffff:01.2.3.4",
      "::1.2.3.4:5",
      "1.2.3.4::",
      "1:2:3:4:5:6:7:1.2.3.4",
      "fe80::1%eth0",
      "fe80::1%25eth0",
      "[::1]",
      "[::1]:80",
      "::1/128",
      "0000:0000:0000:0000:0000:ffff:0192.0.2.1",
      "0".repeat(1_000_000),
      "1:".repeat(500_000),
    ]
  ) strictEqual(parseAddress(text).ok, false, text.slice(0, 50));
});

Deno.test("a range holds its addresses up to its last bit and none beyond", () => {
  for (
    const [range, inside, outside] of [
      ["10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0"]],
      ["192.0.2.128/25", ["192.0.2.128", "192.0.2.255"], ["192.0.2.127", "192.0.3.128"]],
      ["192.0.2.4/30", ["192.0.2.4", "192.0.2.7"], ["192.0.2.3", "192.0.2.8"]],
      ["192.0.2.5/32", ["192.0.2.5"], ["192.0.2.4", "192.0.2.6"]],
      ["192.0.2.5", ["192.0.2.5"], ["192.0.2.4"]],
      ["0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::1"]],
      ["128.0.0.0/1", ["128.0.0.0", "255.0.0.0"], ["127.255.255.255"]],
      ["10.1.2.3/8", ["10.9.9.9"], ["11.1.2.3"]], // bits behind the prefix do not count
      ["2001:db8::/33", ["2001:db8:7fff::"], ["2001:db8:8000::"]],
      ["2001:db8::/127", ["2001:db8::1"], ["2001:db8::2"]],
      ["::1", ["::1"], ["::2"]],
      ["::/0", ["::1", "ffff::"], ["10.0.0.1"]],
    ] as const
  ) {
    for (const address of inside) strictEqual(holds(range, address), true, `${range} ${address}`);
    for (const address of outside) strictEqual(holds(range, address), false, `${range} ${address}`);
  }
});

Deno.test("a range of IPv4-mapped addresses counts its prefix as it was written: from the start of the IPv6 form", () => {
  strictEqual(holds("::ffff:10.0.0.0/104", "10.255.0.1"), true);
  strictEqual(holds("::ffff:10.0.0.0/104", "11.0.0.1"), false);
  strictEqual(holds("::ffff:10.0.0.1/128", "10.0.0.1"), true);
  strictEqual(holds("::ffff:10.0.0.1", "10.0.0.1"), true);
  // Wider than the mapped block: neither IPv4 nor IPv6 alone.
  strictEqual(parseAddressRange("::ffff:10.0.0.0/8").ok, false);
  strictEqual(parseAddressRange("::ffff:10.0.0.0/95").ok, false);
});

Deno.test("what is no range is refused", () => {
  for (
    const text of [
      "",
      "/8",
      "10.0.0.0/",
      "10.0.0.0/33",
      "::/129",
      "10.0.0.0/-1",
      "10.0.0.0/+8",
      "10.0.0.0/8.0",
      "10.0.0.0/ 8",
      "10.0.0.0/8 ",
      "10.0.0.0/08",
      "10.0.0.0/255.0.0.0",
      "10.0.0.0/8/8",
      "10.0.0.*",
      "10/8",
      "fe80::%1/64",
    ]
  ) strictEqual(parseAddressRange(text).ok, false, text);
});

Deno.test("a client's network is its IPv4 address or the first 64 bits of its IPv6 address", () => {
  strictEqual(clientNetwork(bytesOf("192.0.2.1")), "192.0.2.1");
  strictEqual(clientNetwork(bytesOf("::ffff:192.0.2.1")), "192.0.2.1");
  strictEqual(clientNetwork(bytesOf("2001:db8:1:2:3:4:5:6")), "2001:db8:1:2::/64");
  strictEqual(clientNetwork(bytesOf("2001:db8:1:2:ffff::")), "2001:db8:1:2::/64");
  // NAT64: each client of IPv4 by itself.
  strictEqual(clientNetwork(bytesOf("64:ff9b::192.0.2.1")), "192.0.2.1");
  strictEqual(clientNetwork(bytesOf("64:ff9b:1::192.0.2.1")), "64:ff9b:1:0::/64");
});

Deno.test("property: every generated address is read, and its canonical text reads back to itself", () => {
  fc.assert(fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
    const canonical = formatAddress(bytesOf(text));
    deepStrictEqual(bytesOf(canonical), bytesOf(text));
    strictEqual(formatAddress(bytesOf(canonical)), canonical);
  }));
});

Deno.test("property: texts of an address's letters never throw, and what is accepted has one canonical text", () => {
  const nearly = fc.string({ unit: fc.constantFrom(..."0123f:.:."), maxLength: 20 });
  fc.assert(
    fc.property(nearly, (text) => {
      const parsed = parseAddress(text);
      if (!parsed.ok) return;
      strictEqual(parsed.value.length === 4 || parsed.value.length === 16, true);
      deepStrictEqual(bytesOf(formatAddress(parsed.value)), parsed.value);
    }),
    { numRuns: 3000 },
  );
});

Deno.test("property: a range made of an address's first bits holds it, and one with the last of them turned does not", () => {
  const address = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  ).map((bytes) => [...bytes]);
  fc.assert(fc.property(address, fc.nat(127), (bytes, bit) => {
    const prefixBits = bit % (bytes.length * 8) + 1;
    strictEqual(rangeHolds({ bytes, prefixBits }, bytes), true);
    const turned = bytes.map((byte, index) =>
      index === (prefixBits - 1) >> 3 ? byte ^ (128 >> ((prefixBits - 1) & 7)) : byte
    );
    strictEqual(rangeHolds({ bytes: turned, prefixBits }, bytes), false);
  }));
});
