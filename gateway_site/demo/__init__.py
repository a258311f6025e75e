"""The demo: three small MCP servers that run as processes of their own.

They are ordinary upstreams in plain ASGI, speak both protocol eras, and share nothing with
the gateway but this folder.
"""
