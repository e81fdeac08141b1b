// deno task keys: what it prints can be sourced by a shell and starts production.
import { deepStrictEqual, match } from "node:assert/strict";
import { parseConfig } from "../../src/config/config.ts";

Deno.test("deno task keys prints lines that a shell can source, its words to the person on the other stream, and keys that production takes", async () => {
  const root = `${import.meta.dirname}/../..`;
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-P=tools",
      "--no-prompt",
      "--cached-only",
      "--frozen",
      "--no-remote",
      "src/cli/cli.ts",
      "keys",
    ],
    cwd: root,
  }).output();
  match(new TextDecoder().decode(stderr), /Keep both/);
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeFile(`${folder}/production.env`, stdout);
    const script =
      'set -eu; . ./production.env; printf "%s\\0%s" "$PORTCULLIS_MASTER_KEY" "$PORTCULLIS_SIGNING_KEY"';
    const sourced = await new Deno.Command("sh", { args: ["-c", script], cwd: folder }).output();
    deepStrictEqual([sourced.code, new TextDecoder().decode(sourced.stderr)], [0, ""]);
    const [masterKey = "", signingKey = ""] = new TextDecoder().decode(sourced.stdout).split("\0");
    const parsed = parseConfig({
      variables: {
        PORTCULLIS_MODE: "production",
        PORTCULLIS_PUBLIC_URL: "https://ai.example.com",
        PORTCULLIS_MASTER_KEY: masterKey,
        PORTCULLIS_SIGNING_KEY: signingKey,
      },
      file: undefined,
      cores: 2,
      storeExists: () => true,
    });
    deepStrictEqual(parsed.ok ? [] : parsed.mistakes, []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
