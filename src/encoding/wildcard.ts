// Wildcard: patterns in which `*` stands for any characters.

/** Whether a pattern matches a whole text; in time that grows with their product at most. */
export function matchesPattern(pattern: string, text: string): boolean {
  if (pattern === "*") return true;
  let [at, from, star, mark] = [0, 0, -1, 0];
  while (from < text.length) {
    if (pattern[at] === "*") {
      star = at++;
      mark = from;
    } else if (at < pattern.length && pattern[at] === text[from]) {
      at++;
      from++;
    } else if (star !== -1) {
      at = star + 1;
      from = ++mark;
    } else return false;
  }
  while (pattern[at] === "*") at++;
  return at === pattern.length;
}
