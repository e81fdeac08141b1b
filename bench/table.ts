// Table: everything that was measured, as one text.
import type { Spread } from "./rounds.ts";

export interface TableRow {
  readonly what: string;
  /** What Portcullis did, with its unit. */
  readonly ours: string;
  /** What it is compared with, with its unit. */
  readonly beside?: string;
  /** How near to the other we come: 1 is as good, more is better. */
  readonly ratio?: Spread;
  readonly aim?: { readonly text: string; readonly met: boolean };
}

/**
 * One row without figures begins a group.
 *
 * @param columns what stands above `ours` and above `beside`
 */
export function formatTable(
  rows: readonly TableRow[],
  columns: readonly [string, string] = ["Portcullis", "beside it"],
): string {
  const head = ["", ...columns, "ratio (lowest-highest)", "aim", ""];
  const cells = [
    head,
    ...rows.map(({ what, ours, beside, ratio, aim }) => [
      what,
      ours,
      beside ?? "",
      ratio === undefined
        ? ""
        : `${percent(ratio.median)} (${percent(ratio.lowest)}-${percent(ratio.highest)})`,
      aim?.text ?? "",
      aim === undefined ? "" : aim.met ? "met" : "MISSED",
    ]),
  ];
  const widths = head.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)));
  const lines = cells.map((row) =>
    row.map((cell, column) =>
      column === 0 || column >= 4 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)
    ).join("  ").trimEnd()
  );
  const rule = "-".repeat(Math.max(...lines.map((line) => line.length)));
  return [rule, lines[0] ?? "", rule, ...lines.slice(1), rule].join("\n");
}

/** 0.4 → "40 %". */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** An aim that a ratio must reach. */
export function aimAtLeast(ratio: Spread, share: number): NonNullable<TableRow["aim"]> {
  return { text: `>= ${percent(share)}`, met: ratio.median >= share };
}

/** An aim that a figure must stay below. */
export function aimBelow(figure: number, max: number, unit: string): NonNullable<TableRow["aim"]> {
  return { text: `< ${max} ${unit}`, met: figure < max };
}
