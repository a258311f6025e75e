"""The command that the official suite starts as its client: it hands the server's address
to the test, which has the gateway use that server as an upstream, and ends as the test says."""

import json
import os
import sys
import urllib.request


def main() -> int:
    """Post the address and the suite's context to the test; returns the exit code."""
    control, server = sys.argv[1], sys.argv[-1]
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    context["scenario"] = os.environ["MCP_CONFORMANCE_SCENARIO"]
    # Headers are ASCII, as JSON is when it is written anew.
    headers = {"X-Context": json.dumps(context)}
    request = urllib.request.Request(control, data=server.encode(), headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=100) as answer:
        said = answer.read().decode()
    print(said)
    return 0 if said.startswith("done") else 1


if __name__ == "__main__":
    sys.exit(main())
