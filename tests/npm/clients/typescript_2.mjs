// The official TypeScript client, version 2, as a program of the line protocol.
import {
  Client,
  StreamableHTTPClientTransport,
  UnauthorizedError,
} from "@modelcontextprotocol/client";
import { run } from "./line_protocol.mjs";

await run({
  Client,
  transportTo: (url, provider) =>
    new StreamableHTTPClientTransport(url, { authProvider: provider }),
  Unauthorized: UnauthorizedError,
  finish: (transport, parameters) => transport.finishAuth(parameters),
  takesSchema: false,
  modes: (mode) => ({ versionNegotiation: { mode } }),
  handle: (client, method, answer) => client.setRequestHandler(method, answer),
  notice: (client, method, hear) => client.setNotificationHandler(method, hear),
});
