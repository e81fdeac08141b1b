// Test of docs/audit.md: it lists every event with every field, as the code has them.
import { ok } from "node:assert/strict";
import { eventLists } from "./support/audit_document.ts";

Deno.test("docs/audit.md lists every event that can be recorded, with every field, as the code's table has them", () => {
  const page = Deno.readTextFileSync(new URL("../docs/audit.md", import.meta.url));
  const lists = eventLists();
  ok(page.includes(`\n${lists}\n`), `docs/audit.md should hold:\n${lists}`);
});
