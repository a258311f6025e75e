// The official TypeScript client, version 1, as a program of the line protocol.
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { run } from "./line_protocol.mjs";

await run({
  Client,
  Transport: StreamableHTTPClientTransport,
  Unauthorized: UnauthorizedError,
  finish: (transport, parameters) => transport.finishAuth(parameters.get("code")),
  takesSchema: true,
  modes: () => ({}),
});
