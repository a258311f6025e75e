// An OpenID provider that nobody of this project wrote (panva's oidc-provider), as a process.
// It reads one JSON command per line and answers each with one line; see
// tests/journeys/identity_provider.py. The pages for people are the library's own.

import { createServer } from "node:http";
import process from "node:process";
import { createInterface } from "node:readline";

import { exportJWK, generateKeyPair } from "jose";
import Provider, { errors as oidc } from "oidc-provider";
import { createMemoryAdapter } from "oidc-provider/lib/adapters/memory_adapter.js";

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const people = new Map();
const keys = [];
const adapter = createMemoryAdapter();
let made = 0;
let client;
let errors = [];

async function newKey() {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  made += 1;
  const kid = `key-${made}`;
  return { ...(await exportJWK(privateKey)), kid, use: "sig", alg: "RS256" };
}

function findAccount(ctx, login) {
  const person = people.get(login);
  if (!person || person.disabled) {
    // Like a company's provider: no sign-in in the browser, and nothing more at the token endpoint.
    if (ctx.oidc.route === "token") return undefined;
    throw new oidc.AccessDenied("the account is disabled");
  }
  return { accountId: login, claims: async () => ({ sub: login, ...person.claims }) };
}

function build() {
  const provider = new Provider(issuer, {
    adapter,
    clients: client ? [client] : [],
    jwks: { keys },
    findAccount,
    claims: {
      openid: ["sub"],
      email: ["email", "email_verified"],
      profile: ["name", "preferred_username"],
      groups: ["groups"],
    },
    scopes: ["openid", "offline_access"],
    features: {
      devInteractions: { enabled: true },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        // As the library's own page, with the button inside of the form.
        logoutSource: async (ctx, form) => {
          const button = '<button type="submit" name="logout" value="yes">Yes, sign me out</button>';
          ctx.body = `<!DOCTYPE html><title>Logout</title>${form.replace("</form>", `${button}</form>`)}`;
        },
      },
    },
    // The gateway of a test is at a loopback address, where the library's own guard never posts.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    cookies: { keys: ["only for tests"] },
    pkce: { required: () => true },
  });
  const tell = (what) => (ctx, error) => errors.push(`${what}: ${error?.message} ${error?.cause ?? ""}`);
  provider.on("backchannel.error", tell("back-channel"));
  provider.on("server_error", tell("server"));
  return provider.callback();
}

const commands = {
  client: async (said) => ((client = said.metadata), {}),
  person: async (said) => (people.set(said.login, { claims: said.claims, disabled: said.disabled }), {}),
  rotate: async (said) => {
    keys.unshift(await newKey());
    if (said.drop) keys.length = 1;
    return { kid: keys[0].kid };
  },
  errors: async () => ({ errors: errors.splice(0) }),
};

keys.push(await newKey());
let answer = build();
const server = createServer((request, response) => answer(request, response));
await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
process.stdout.write(`${JSON.stringify({ ready: issuer })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const said = JSON.parse(line);
  const result = await commands[said.do](said);
  answer = build();
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
process.exit(0);
