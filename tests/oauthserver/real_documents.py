"""Client metadata as real clients publish or send it, frozen; only their hosts are replaced.

``HOST`` stands for the origin where the document is served.
"""

from typing import Any

HOST = "{host}"

CHATGPT = {
    "client_id": f"{HOST}/oauth/client.json",
    "client_uri": "https://chatgpt.com/",
    "client_name": "ChatGPT",
    "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
    "token_endpoint_auth_signing_alg": "RS256",
    "jwks_uri": f"{HOST}/oauth/jwks.json",
    "logo_uri": "https://persistent.oaistatic.com/sonic/misc/openai-logo.png",
}
# As published until August 2026: one document per connection, without the plural member.
CHATGPT_PER_CALLBACK = {
    "client_id": f"{HOST}/oauth/abc123/client.json",
    "client_name": "ChatGPT",
    "redirect_uris": ["https://chatgpt.com/connector/oauth/abc123"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_signing_alg": "RS256",
    "jwks_uri": f"{HOST}/oauth/jwks.json",
}
CLAUDE = {
    "client_id": f"{HOST}/oauth/mcp-oauth-client-metadata",
    "client_name": "Claude",
    "client_uri": "https://claude.ai",
    "redirect_uris": [
        "https://claude.ai/api/mcp/auth_callback",
        "https://claude.com/api/mcp/auth_callback",
    ],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}
CLAUDE_CODE = {
    "client_id": f"{HOST}/oauth/claude-code-client-metadata",
    "client_name": "Claude Code",
    "client_uri": "https://claude.ai",
    "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}
VS_CODE = {
    "client_id": f"{HOST}/oauth/client-metadata.json",
    "client_name": "Visual Studio Code",
    "client_uri": "https://vscode.dev/product",
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
    ],
    "response_types": ["code"],
    "redirect_uris": [
        "http://127.0.0.1:33418/",
        "http://127.0.0.1/",
        "https://vscode.dev/redirect",
    ],
    "token_endpoint_auth_method": "none",
    "application_type": "native",
}
KIRO = {
    "client_id": f"{HOST}/oauth/client-metadata.json",
    "client_name": "Kiro",
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
    ],
    "response_types": ["code"],
    "redirect_uris": ["http://127.0.0.1/oauth/callback", "http://localhost/oauth/callback"],
    "token_endpoint_auth_method": "none",
}
CODEX = {
    "client_id": f"{HOST}/oauth/codex/client.json",
    "client_name": "Codex",
    "client_uri": "https://chatgpt.com/codex",
    "redirect_uris": ["http://127.0.0.1/callback", "http://localhost/callback"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "chatgpt": CHATGPT,
    "chatgpt-per-callback": CHATGPT_PER_CALLBACK,
    "claude": CLAUDE,
    "claude-code": CLAUDE_CODE,
    "vs-code": VS_CODE,
    "kiro": KIRO,
    "codex": CODEX,
}

REGISTRATIONS: dict[str, dict[str, Any]] = {
    "cursor": {
        "client_name": "Cursor",
        "redirect_uris": [
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "http://localhost:8787/callback",
        ],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    "vs-code": {
        "client_name": "Visual Studio Code",
        "client_uri": "https://code.visualstudio.com",
        "grant_types": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "response_types": ["code"],
        "redirect_uris": [
            "https://insiders.vscode.dev/redirect",
            "https://vscode.dev/redirect",
            "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
        ],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    },
    "claude": {
        "client_name": "Claude",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_post",
        "scope": "mcp:tools offline_access",
        "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
    },
    "gemini-cli": {
        "client_name": "Gemini CLI MCP Client",
        "redirect_uris": ["http://localhost:7777/oauth/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "code_challenge_method": ["S256"],
        "scope": "",
    },
    "mcp-remote": {
        "redirect_uris": ["http://localhost:3334/oauth/callback"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "MCP CLI Proxy",
        "client_uri": "https://github.com/modelcontextprotocol/mcp-cli",
        "software_id": "2e6dc280-f3c3-4e01-99a7-8181dbd1d23d",
        "software_version": "0.1.38",
    },
    "inspector": {
        "redirect_uris": ["http://localhost:6274/oauth/callback"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "MCP Inspector",
        "client_uri": "https://github.com/modelcontextprotocol/inspector",
        "scope": "",
    },
    "python-sdk": {
        "redirect_uris": ["http://localhost:3030/callback"],
        "token_endpoint_auth_method": None,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "Simple Auth Client",
        "contacts": None,
        "scope": "mcp:tools",
    },
    "minimal": {"redirect_uris": ["https://client.example/cb"]},
}


def at(host: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return a document as if published at ``host``."""
    placed: dict[str, Any] = {}
    for name, value in document.items():
        placed[name] = value.replace(HOST, host) if isinstance(value, str) else value
    return placed
