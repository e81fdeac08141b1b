// Access document: docs/access.md, made of the route table and the built-in roles.
import { type Action, ACTIONS } from "../../src/access/action.ts";
import { formatGrant } from "../../src/access/grant.ts";
import type { Role } from "../../src/access/role.ts";
import type { AnyRoute, Policy } from "../../src/http/route.ts";

/** The document as Markdown. */
export function accessDocument(routes: readonly AnyRoute[], roles: readonly Role[]): string {
  const names = roles.map(({ name }) => name);
  return `# Access

Written by \`deno task access\`; a test holds this page against the code.

Whoever calls has roles, by their account here or by the settings of their issuer ([issuers.md](issuers.md)). Roles give grants. The
credential can narrow them: the scope of a token or of an API key takes away and never gives. What nothing grants is refused.

## Grants and scopes

A grant is \`ACTION\` or \`ACTION/ON\`; roles, keys and the \`scope\` of tokens are written in the same grammar. Without \`ON\` it reaches
everything.

| action on | \`ON\` | such as |
|---|---|---|
| a model | a pattern over models' ids, in which \`*\` stands for any characters, at most four of them | \`model:infer/llama*\` |
| something of somebody | \`own\`: what is the caller's · \`team\`: what is the caller's team's · \`*\` | \`user:write/team\` |
| the server | \`*\` | \`signing_key:rotate\` |

${
    (["model", "object", "system"] as const).map((kind) =>
      `- ${KINDS[kind]}: ${
        Object.keys(ACTIONS).filter((action) => ACTIONS[action as Action] === kind).map(code).join(", ")
      }`
    ).join("\n")
  }

## Whose things are

- Every user and client belongs to one team, and so does what is theirs: keys and sessions. The owner is the pair of issuer and subject;
  an account of another issuer is somebody else, whatever its subject is.
- Nothing crosses between teams but by a grant that reaches everything.
- Whoever may not read a thing is told that it does not exist: 404, in the same words as for what never was. Whoever may read it and not do
  this with it is told so: 403. Whoever may do this with nothing at all is told so at once: 403, whether the thing exists or not. Lists hold
  what the caller may read.
- A built-in role reaches the models whose cards name it (\`see\`, \`use\`, and \`teams\` where a card has them). A custom role reaches the
  models that its patterns match, whatever roles their cards name; never those that are for other teams. It also gives what everybody may
  do with what is their own: sessions, the password, keys, usage.
- A role of a team means something in that team alone, and reaches nothing beyond it. What is built in or is the whole server's (\`-\` in
  paths) can be read by all who read roles, and changed by those who reach everything.
- Nobody gives what they do not have: roles, grants, keys and secrets that would speak for somebody stronger. So whoever looks after a
  team and is to hand out the role \`user\` has that role too. Nobody changes an account that can do more than their own, and nobody
  disables, deletes or changes themselves.

## Built-in roles

| role | what for | grants |
|---|---|---|
${
    roles.map(({ name, description, grants }) =>
      `| ${code(name)} | ${description} | ${grants.map((grant) => code(formatGrant(grant))).join(", ")} |`
    ).join("\n")
  }

## Routes

How far each built-in role reaches with the action that the route demands; of several roles the farthest counts. **all**: everything,
in every team · **team**: what is the team's · **own**: what is one's own · **card**: the models whose cards name the role · –: nothing.
HEAD is GET. \`upstream:read\` decides on who is told which upstream answered, \`token:introspect\` on whose tokens a client is told of.

| route | action | ${names.join(" | ")} |
|---|---|${"---|".repeat(names.length)}
${routes.map((route) => `| ${routeCells(route, roles).join(" | ")} |`).join("\n")}
`;
}

const KINDS = { model: "On models", object: "On something of somebody", system: "On the server" } as const;

const OPEN: Readonly<Record<Exclude<Policy["kind"], "action">, string>> = {
  public: "anyone",
  sign_in: "anyone, in order to become someone",
  client: "clients (OAuth 2)",
  nothing: "",
};

function routeCells({ method, path, policy }: AnyRoute, roles: readonly Role[]): string[] {
  const route = code(`${method} ${path}`);
  return policy.kind === "action"
    ? [route, code(policy.action), ...roles.map((role) => reach(role, policy.action))]
    : [route, OPEN[policy.kind], ...roles.map(() => "")];
}

const REACHES = ["own", "team", "*"];

/** In a word, how far a role reaches with an action. */
function reach({ grants }: Role, action: Action): string {
  const here = grants.filter((grant) => grant.action === action);
  if (here.length === 0) return "–";
  if (ACTIONS[action] === "model") return "card";
  const farthest = REACHES.findLast((each) => here.some(({ on }) => on === each));
  return farthest === "*" ? "all" : farthest ?? "–";
}

function code(text: string): string {
  return `\`${text}\``;
}
