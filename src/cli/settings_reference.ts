// Settings reference: docs/settings.md, printed from the table that the settings are parsed with.
import { type Setting, type SettingName, SETTINGS, variableOf } from "../config/schema.ts";

/** The reference as Markdown. */
export function settingsReference(): string {
  const rows = (Object.entries(SETTINGS) as [SettingName, Setting<unknown>][]).map(
    ([name, { type, fallback, meaning, secret }]) => {
      const variable = secret
        ? `\`${variableOf(name)}\` or \`${variableOf(name)}_FILE\``
        : `\`${variableOf(name)}\``;
      const field = secret ? "–" : `\`${name}\``;
      const shown = fallback === undefined ? "–" : `\`${shownDefault(fallback)}\``;
      return `| ${variable} | ${field} | ${shown} | ${type.allowed} | ${meaning} |`;
    },
  );
  return `# Settings

Printed by \`deno task settings\`; a test holds this page against the code.

A setting is read from its environment variable, else from its field in \`portcullis.json\` (another path: \`PORTCULLIS_CONFIG\`), else its
default holds. Lists are JSON arrays in the file and comma-separated in a variable. Secrets come from a variable or from a file that
\`…_FILE\` names, never from \`portcullis.json\`. An unknown setting, or a value that is not allowed, keeps the server from starting; all
mistakes are reported at once.

| variable | field | default | allowed | meaning |
|---|---|---|---|---|
${rows.join("\n")}`;
}

function shownDefault(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  if (Object.keys(value).length === 0) return "(empty)";
  return Array.isArray(value) ? value.join(",") : JSON.stringify(value);
}
