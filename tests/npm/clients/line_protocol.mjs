// The TypeScript SDK's programs of the line protocol; see tests/journeys/official_client.py.
// The two generations of the SDK differ in imports and in how the transport takes the redirect;
// `run` gets both from the caller.

import { createInterface } from "node:readline";
import process from "node:process";

const STATELESS = "2026-07-28";
const REDIRECT_URI = "http://127.0.0.1:33418/callback";
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const say = (event, more = {}) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");

async function hear() {
  const { value, done } = await lines.next();
  return done ? { do: "quit" } : JSON.parse(value);
}

export async function askPerson(url) {
  say("authorize", { url: String(url) });
  return (await hear()).redirect;
}

class Provider {
  constructor() {
    this.redirect = "";
  }
  get redirectUrl() {
    return REDIRECT_URI;
  }
  get clientMetadata() {
    return {
      client_name: "Official TypeScript client",
      redirect_uris: [REDIRECT_URI],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    };
  }
  state() {
    this.expected = crypto.randomUUID();
    return this.expected;
  }
  clientInformation() {
    return this.information;
  }
  saveClientInformation(information) {
    this.information = information;
  }
  tokens() {
    return this.kept;
  }
  saveTokens(tokens) {
    this.kept = tokens;
  }
  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }
  codeVerifier() {
    return this.verifier;
  }
  invalidateCredentials(scope) {
    if (scope === "all" || scope === "tokens") this.kept = undefined;
    if (scope === "all" || scope === "client") this.information = undefined;
  }
  async redirectToAuthorization(url) {
    this.redirect = await askPerson(url);
    if (!this.redirect) throw new Error("NotComingBack: asked to sign in again");
  }
}

class Commands {
  constructor(client, provider, heard, changes) {
    this.client = client;
    this.provider = provider;
    this.heard = heard;
    this.changes = changes;
  }
  async tools() {
    const names = [];
    let cursor;
    do {
      const page = await this.client.listTools(cursor ? { cursor } : {});
      names.push(...page.tools.map((tool) => tool.name));
      cursor = page.nextCursor;
    } while (cursor);
    return { event: "tools", names };
  }
  async call({ name, arguments: given }) {
    const progress = [];
    const result = await this.client.callTool({ name, arguments: given }, ...this.options(progress));
    const text = result.content.map((block) => block.text ?? "").join("");
    const structured = result.structuredContent ?? null;
    return { event: "called", text, is_error: Boolean(result.isError), structured, progress };
  }
  async asked() {
    return { event: "asked", heard: this.heard };
  }
  async watch({ uris }) {
    if (this.client.listens) {
      const filter = { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true };
      this.listening = await this.client.listen({ ...filter, resourceSubscriptions: uris });
      return { event: "watching", uris: this.listening.honoredFilter.resourceSubscriptions ?? [] };
    }
    for (const uri of uris) await this.client.subscribeResource({ uri });
    return { event: "watching", uris };
  }
  async unwatch({ uris }) {
    if (this.listening) await this.listening.close();
    else for (const uri of uris) await this.client.unsubscribeResource({ uri });
    return { event: "unwatched" };
  }
  async noticed() {
    return { event: "noticed", changes: this.changes };
  }
  async begin({ name, arguments: given }) {
    this.aborting = new AbortController();
    const options = this.options([], { signal: this.aborting.signal });
    this.running = this.client.callTool({ name, arguments: given }, ...options).catch(() => {});
    return { event: "begun" };
  }
  async abort() {
    this.aborting.abort("no longer wanted");
    await this.running;
    return { event: "aborted" };
  }
  options(progress, more = {}) {
    const options = { onprogress: (one) => progress.push(one.progress), ...more };
    return this.client.callToolTakesSchema ? [undefined, options] : [options];
  }
  async read({ uri }) {
    const [content] = (await this.client.readResource({ uri })).contents;
    return { event: "read", text: content.text, mime: content.mimeType };
  }
  async resources() {
    const listed = await this.client.listResources();
    return { event: "resources", uris: listed.resources.map((one) => one.uri) };
  }
  async prompt({ name, arguments: given }) {
    const [message] = (await this.client.getPrompt({ name, arguments: given })).messages;
    return { event: "prompt", text: message.content.text };
  }
  async complete({ prompt, argument, value }) {
    const ref = { type: "ref/prompt", name: prompt };
    const result = await this.client.complete({ ref, argument: { name: argument, value } });
    return { event: "completed", values: result.completion.values };
  }
  async expire() {
    // The SDK refreshes when it meets a 401: a token the gateway does not know brings one.
    this.provider.kept = { ...this.provider.kept, access_token: "no-longer-valid" };
    return { event: "expired" };
  }
  async tokens() {
    const kept = this.provider.kept ?? {};
    return { event: "tokens", access: kept.access_token, refresh: kept.refresh_token };
  }
}

const CAPABILITIES = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };

function answers(heard) {
  return {
    "elicitation/create": async ({ params }) => {
      heard.push(params.message);
      // A page is opened; what is entered there stays there.
      if (params.mode === "url") return { action: "accept" };
      return { action: "accept", content: { answer: "Ada" } };
    },
    "sampling/createMessage": async () => {
      heard.push("sampling");
      return { role: "assistant", content: { type: "text", text: "said" }, model: "m" };
    },
    "roots/list": async () => {
      heard.push("roots");
      return { roots: [{ uri: "file:///work", name: "work" }] };
    },
  };
}

const NOTICES = {
  "notifications/tools/list_changed": () => "tools",
  "notifications/prompts/list_changed": () => "prompts",
  "notifications/resources/list_changed": () => "resources",
  "notifications/resources/updated": ({ params }) => `updated ${params.uri}`,
};

export async function run(sdk) {
  const { Client, transportTo, Unauthorized, finish, takesSchema, modes, handle, notice } = sdk;
  const heard = [];
  const changes = [];
  const [endpoint, mode] = process.argv.slice(2);
  const provider = new Provider();
  const connect = async () => {
    const options = { capabilities: CAPABILITIES, ...modes(mode) };
    const client = new Client({ name: "official", version: "1" }, options);
    for (const [method, answer] of Object.entries(answers(heard))) handle(client, method, answer);
    for (const [method, named] of Object.entries(NOTICES)) {
      notice(client, method, (one) => void changes.push(named(one)));
    }
    client.callToolTakesSchema = takesSchema;
    const transport = transportTo(new URL(endpoint), provider, mode);
    try {
      await client.connect(transport);
    } catch (error) {
      if (!(error instanceof Unauthorized) || !provider.redirect) throw error;
      await finish(transport, new URL(provider.redirect).searchParams);
      provider.redirect = "";
      return connect();
    }
    return { client, transport };
  };
  await hear();
  try {
    const { client, transport } = await connect();
    const revision = transport.protocolVersion ?? client.getNegotiatedProtocolVersion?.() ?? "";
    say("connected", { revision, instructions: client.getInstructions() ?? "" });
    client.listens = revision === STATELESS;
    const commands = new Commands(client, provider, heard, changes);
    for (let command = await hear(); command.do !== "quit"; command = await hear()) {
      const { event, ...more } = await commands[command.do](command);
      say(event, more);
    }
    say("quit");
    await client.close();
  } catch (error) {
    process.stderr.write(`${error.stack}\n${error.cause?.stack ?? ""}\n`);
    say("failed", { error: `${error.name}: ${error.message}` });
    await hear();
    say("quit");
  }
  process.exit(0);
}
