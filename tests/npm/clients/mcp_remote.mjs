// mcp-remote as a program of the line protocol: an official client that starts it as a local
// server, as hosts do that know only those. The client speaks 2025-11-25 to it; towards the
// gateway mcp-remote speaks that too (mode "legacy") or the stateless revision ("auto").
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Client, UnauthorizedError } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { askPerson, run } from "./line_protocol.mjs";

const PACKAGES = join(dirname(fileURLToPath(import.meta.url)), "..", "node_modules");
const FOLDER = process.env.MCP_REMOTE_CONFIG_DIR ?? temporaryFolder();
const AUTHORIZATION = /^https?:\/\/\S+\/oauth\/authorize\?\S+/m;

function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), "mcp-remote-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function signIn(address) {
  const redirect = await askPerson(address);
  // The person's browser comes back to the port that mcp-remote listens on.
  if (redirect) await fetch(redirect);
}

function transportTo(url, provider, mode) {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [join(PACKAGES, "mcp-remote", "dist", "proxy.js"), String(url), "--protocol", mode],
    // The browser that it opens does nothing: the address is also in what it writes.
    env: { ...process.env, BROWSER: "true", MCP_REMOTE_CONFIG_DIR: FOLDER },
    stderr: "pipe",
  });
  let written = "";
  transport.stderr.on("data", (chunk) => {
    process.stderr.write(chunk);
    written += chunk;
    const [address] = AUTHORIZATION.exec(written) ?? [];
    if (!address || !written.includes("\n", written.indexOf(address) + address.length)) return;
    written = "";
    signIn(address);
  });
  return transport;
}

await run({
  Client,
  transportTo,
  Unauthorized: UnauthorizedError,
  takesSchema: false,
  modes: () => ({ versionNegotiation: { mode: "legacy" } }),
  handle: (client, method, answer) => client.setRequestHandler(method, answer),
  notice: (client, method, hear) => client.setNotificationHandler(method, hear),
});
