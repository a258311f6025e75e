// A SAML identity provider by an implementation that nobody of this project wrote (samlify), as a
// process. It reads one JSON command per line and answers each with one line; see
// tests/journeys/saml_identity_provider.py. Its pages stand for a company's sign-in.

import { createServer } from "node:http";
import process from "node:process";
import { createInterface } from "node:readline";

import samlify from "samlify";

const { Constants, IdentityProvider, SamlLib, ServiceProvider, setSchemaValidator } = samlify;
const port = Number(process.argv[2]);
const own = `http://127.0.0.1:${port}`;
const redirect = Constants.namespace.binding.redirect;
const people = new Map();
const errors = [];
const asked = [];
const answered = [];
let idp;
let gateway;

// Schemas are the business of a validator of one's choice; signatures and contents are checked here.
setSchemaValidator({ validate: async () => "not asked for" });

function setUp({ privateKey, signingCert }) {
  idp = IdentityProvider({
    entityID: `${own}/idp`,
    privateKey,
    signingCert,
    wantAuthnRequestsSigned: true,
    wantLogoutRequestSigned: true,
    wantLogoutResponseSigned: true,
    nameIDFormat: ["urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"],
    singleSignOnService: [{ Binding: redirect, Location: `${own}/sso` }],
    singleLogoutService: [{ Binding: redirect, Location: `${own}/slo` }],
  });
}

async function knowGateway({ metadata }) {
  const answer = await fetch(metadata);
  gateway = ServiceProvider({
    metadata: await answer.text(),
    wantLogoutRequestSigned: true,
    wantLogoutResponseSigned: true,
  });
}

// What samlify checks a redirect's signature over (SAML Bindings 3.4.4.1).
function received(url) {
  const raw = url.search.slice(1).split("&");
  const signed = ["SAMLRequest", "SAMLResponse", "RelayState", "SigAlg"];
  const octetString = signed.flatMap((name) => raw.filter((one) => one.startsWith(`${name}=`))).join("&");
  return { query: Object.fromEntries(url.searchParams), octetString };
}

const escaped = (text) =>
  text.replace(/[&<>"]/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[one]);
const page = (title, body) => `<!DOCTYPE html><title>${title}</title><h1>${title}</h1>${body}`;
const field = (name, value) => `<input type="hidden" name="${name}" value="${escaped(value)}">`;

function attributes(person) {
  const one = ([name, values]) =>
    `<saml:Attribute Name="${escaped(name)}">${values
      .map((value) => `<saml:AttributeValue>${escaped(value)}</saml:AttributeValue>`)
      .join("")}</saml:Attribute>`;
  return `<saml:AttributeStatement>${Object.entries(person).map(one).join("")}</saml:AttributeStatement>`;
}

async function signIn(login, url) {
  const request = await idp.parseLoginRequest(gateway, "redirect", received(url));
  asked.push(request.extract.request);
  const now = new Date();
  const later = new Date(now.getTime() + 300_000).toISOString();
  const reply = gateway.entityMeta.getAssertionConsumerService("post");
  const statement =
    `<saml:AuthnStatement AuthnInstant="${now.toISOString()}" SessionIndex="session-of-${login}">` +
    "<saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:" +
    "PasswordProtectedTransport</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>";
  const fill = (template) => {
    const whole = template
      .replace("{AuthnStatement}", statement)
      .replace("{AttributeStatement}", attributes(people.get(login)));
    const id = idp.entitySetting.generateID();
    const context = SamlLib.replaceTagsByValue(whole, {
      ID: id,
      AssertionID: idp.entitySetting.generateID(),
      Destination: reply,
      SubjectRecipient: reply,
      Audience: gateway.entityMeta.getEntityID(),
      Issuer: idp.entityMeta.getEntityID(),
      IssueInstant: now.toISOString(),
      ConditionsNotBefore: now.toISOString(),
      ConditionsNotOnOrAfter: later,
      SubjectConfirmationDataNotOnOrAfter: later,
      InResponseTo: request.extract.request.id,
      StatusCode: "urn:oasis:names:tc:SAML:2.0:status:Success",
      NameIDFormat: "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
      NameID: login,
    });
    return { id, context };
  };
  const made = await idp.createLoginResponse(gateway, request, "post", {}, { customTagReplacement: fill });
  const state = url.searchParams.get("RelayState");
  return page(
    "Signed in",
    `<form method="post" action="${made.entityEndpoint}">${field("SAMLResponse", made.context)}` +
      `${state === null ? "" : field("RelayState", state)}<button>Continue</button></form>`,
  );
}

async function signOut(url) {
  if (url.searchParams.has("SAMLResponse")) {
    const answer = await idp.parseLogoutResponse(gateway, "redirect", received(url));
    answered.push(answer.extract.response);
    return { text: page("Signed out everywhere", "") };
  }
  const request = await idp.parseLogoutRequest(gateway, "redirect", received(url));
  asked.push({ ...request.extract.request, nameID: request.extract.nameID });
  const state = url.searchParams.get("RelayState");
  const options = state === null ? {} : { relayState: state };
  return { goTo: idp.createLogoutResponse(gateway, request, "redirect", options).context };
}

async function answer(request, response) {
  const url = new URL(request.url, own);
  let said = {};
  if (url.pathname === "/metadata") {
    response.setHeader("content-type", "application/samlmetadata+xml");
    return response.end(idp.getMetadata());
  }
  if (url.pathname === "/sso" && request.method === "GET") {
    const there = escaped(`${url.pathname}${url.search}`);
    said.text = page("Company", `<form method="post" action="${there}"><input name="login"><button>Sign-in</button></form>`);
  } else if (url.pathname === "/sso") {
    let body = "";
    for await (const part of request) body += part;
    said.text = await signIn(new URLSearchParams(body).get("login"), url);
  } else if (url.pathname === "/slo") {
    said = await signOut(url);
  }
  if (said.goTo) response.writeHead(302, { location: said.goTo });
  else response.writeHead(said.text ? 200 : 404, { "content-type": "text/html; charset=utf-8" });
  response.end(said.text ?? "");
}

const commands = {
  keys: async (given) => (setUp(given), {}),
  gateway: async (given) => (await knowGateway(given), {}),
  person: async ({ login, attributes: given }) => (people.set(login, given), {}),
  logout: async ({ login }) => {
    const user = { logoutNameID: login, sessionIndex: `session-of-${login}` };
    return { url: idp.createLogoutRequest(gateway, "redirect", user, {}).context };
  },
  seen: async () => ({ errors: errors.splice(0), asked: asked.splice(0), answered: answered.splice(0) }),
};

const server = createServer((request, response) =>
  answer(request, response).catch((failure) => {
    errors.push(`${request.url.split("?")[0]}: ${failure?.stack ?? failure}`);
    response.writeHead(500, { "content-type": "text/html" }).end(page("Failed", ""));
  }),
);
await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
process.stdout.write(`${JSON.stringify({ ready: own })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const said = JSON.parse(line);
  const result = await commands[said.do](said).catch((failure) => ({ failed: String(failure?.stack ?? failure) }));
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
process.exit(0);
