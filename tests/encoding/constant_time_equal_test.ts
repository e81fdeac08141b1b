// Tests of the comparison of secrets: its answers; its timing is the platform's `timingSafeEqual`.
import { strictEqual } from "node:assert/strict";
import { constantTimeEqual } from "../../src/encoding/constant_time_equal.ts";

Deno.test("equal bytes are equal, at any offset of their buffers", () => {
  strictEqual(constantTimeEqual(new Uint8Array(), new Uint8Array()), true);
  strictEqual(constantTimeEqual(Uint8Array.of(1, 2), Uint8Array.of(0, 1, 2).subarray(1)), true);
});

Deno.test("a difference in any bit or in length is a difference, and no length throws", () => {
  const secret = crypto.getRandomValues(new Uint8Array(32));
  for (let index = 0; index < 32; index++) {
    for (const bit of [1, 128]) {
      const other = secret.slice();
      other[index] = (other[index] ?? 0) ^ bit;
      strictEqual(constantTimeEqual(secret, other), false);
    }
  }
  strictEqual(constantTimeEqual(secret, secret.subarray(1)), false);
  strictEqual(constantTimeEqual(secret, new Uint8Array()), false);
});
