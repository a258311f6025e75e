// The official TypeScript client, version 1, as a program of the line protocol.
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  PromptListChangedNotificationSchema,
  ResourceListChangedNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { run } from "./line_protocol.mjs";

const SCHEMAS = {
  "elicitation/create": ElicitRequestSchema,
  "sampling/createMessage": CreateMessageRequestSchema,
  "roots/list": ListRootsRequestSchema,
  "notifications/tools/list_changed": ToolListChangedNotificationSchema,
  "notifications/prompts/list_changed": PromptListChangedNotificationSchema,
  "notifications/resources/list_changed": ResourceListChangedNotificationSchema,
  "notifications/resources/updated": ResourceUpdatedNotificationSchema,
};

await run({
  Client,
  transportTo: (url, provider) =>
    new StreamableHTTPClientTransport(url, { authProvider: provider }),
  Unauthorized: UnauthorizedError,
  finish: (transport, parameters) => transport.finishAuth(parameters.get("code")),
  takesSchema: true,
  modes: () => ({}),
  handle: (client, method, answer) => client.setRequestHandler(SCHEMAS[method], answer),
  notice: (client, method, hear) => client.setNotificationHandler(SCHEMAS[method], hear),
});
