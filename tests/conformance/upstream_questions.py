"""The conformance upstream's tools that ask back, in the way of each era.

A stateful client is sent a request while the call runs; a stateless one is told
``input_required`` and calls again with the answers (protocol.md 2.3.5).
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    ElicitResult,
    GetPromptResult,
    InputRequiredResult,
    PromptMessage,
    SamplingMessage,
    TextContent,
)

from tests.conformance.upstream_content import MODERN, Context, text

Answered = CallToolResult | InputRequiredResult
AskingBody = Callable[[Context, Any], Awaitable[Answered]]


# Stateful clients ------------------------------------------------------------------
async def _ask_form(ctx: Context, message: str, schema: dict[str, Any]) -> CallToolResult:
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    content = json.dumps(answer.content or {})
    return text(f"Elicitation completed: action={answer.action}, content={content}")


async def _elicit(ctx: Context, params: Any) -> Answered:
    fields = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    schema = {"type": "object", "properties": fields, "required": ["username", "email"]}
    return await _ask_form(ctx, (params.arguments or {}).get("message", "Please answer"), schema)


async def _elicit_defaults(ctx: Context, params: Any) -> Answered:
    fields: dict[str, Any] = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": {"type": "boolean", "default": True},
    }
    return await _ask_form(ctx, "Check the defaults", {"type": "object", "properties": fields})


async def _elicit_enums(ctx: Context, params: Any) -> Answered:
    def titled(kind: str) -> list[dict[str, str]]:
        words = ("First", "Second", "Third")
        return [{"const": f"value{i + 1}", "title": f"{w} {kind}"} for i, w in enumerate(words)]

    plain = ["option1", "option2", "option3"]
    fields: dict[str, Any] = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled("Option")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}},
    }
    return await _ask_form(ctx, "Choose", {"type": "object", "properties": fields})


async def _sample(ctx: Context, params: Any) -> Answered:
    prompt = (params.arguments or {}).get("prompt", "")
    answer = await ctx.session.create_message(
        [SamplingMessage(role="user", content=TextContent(text=prompt))],
        max_tokens=100,
        related_request_id=ctx.request_id,
    )
    said = answer.content.text if isinstance(answer.content, TextContent) else "something"
    return text(f"LLM response: {said}")


# Stateless clients -----------------------------------------------------------------
def _form(message: str, field: str, kind: str = "string") -> dict[str, Any]:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": message, "requestedSchema": schema},
    }


def _completion(prompt: str, tokens: int) -> dict[str, Any]:
    message = {"role": "user", "content": {"type": "text", "text": prompt}}
    return {
        "method": "sampling/createMessage",
        "params": {"messages": [message], "maxTokens": tokens},
    }


_ROOTS: dict[str, Any] = {"method": "roots/list", "params": {}}


def _required(requests: dict[str, Any], state: str | None = None) -> InputRequiredResult:
    return InputRequiredResult.model_validate({"inputRequests": requests, "requestState": state})


def _accepted(answer: Any) -> dict[str, Any] | None:
    """Return the content of an accepted form, or None where there is none to use."""
    if isinstance(answer, ElicitResult) and answer.action == "accept":
        return dict(answer.content or {})
    return None


def _once(requests: dict[str, Any], state: str | None = None) -> AskingBody:
    """Make a tool that asks ``requests`` until every one is answered, checking ``state``."""

    async def body(ctx: Context, params: Any) -> Answered:
        answers = params.input_responses or {}
        if not all(key in answers for key in requests):
            return _required(requests, state)
        forms = [key for key, one in requests.items() if one["method"] == "elicitation/create"]
        if any(_accepted(answers[key]) is None for key in forms):
            return _required(requests, state)
        if state is not None and params.request_state != state:
            raise MCPError(INVALID_PARAMS, "The state does not belong to this call")
        given = {key: answers[key].model_dump(mode="json", exclude_none=True) for key in requests}
        return text(f"{'state-ok ' if state else ''}{json.dumps(given)}")

    return body


async def _two_rounds(ctx: Context, params: Any) -> Answered:
    answers = params.input_responses or {}
    if params.request_state == "second" and (colour := _accepted(answers.get("step2"))):
        return text(f"Done: {json.dumps(colour)}")
    if params.request_state == "first" and _accepted(answers.get("step1")):
        return _required(
            {"step2": _form("Step 2: What is your favorite color?", "color")}, "second"
        )
    return _required({"step1": _form("Step 1: What is your name?", "name")}, "first")


async def _what_the_client_can(ctx: Context, params: Any) -> Answered:
    can = ctx.session.client_capabilities
    possible: dict[str, Any] = {}
    if can is not None and can.sampling is not None:
        possible["question"] = _completion("Say hello", 20)
    if can is not None and can.elicitation is not None:
        possible["form"] = _form("Say hello", "hello")
    if not possible or params.input_responses:
        return text("Nothing more to ask")
    return _required(possible)


def _stateless_only(body: AskingBody) -> AskingBody:
    async def guarded(ctx: Context, params: Any) -> Answered:
        if ctx.protocol_version != MODERN:
            return text("This tool asks in the way of the stateless revision only", failed=True)
        return await body(ctx, params)

    return guarded


_NAME = _form("What is your name?", "name")
_CAPITAL = _completion("What is the capital of France?", 100)
_CONFIRM = {"confirm": _form("Please confirm", "ok", "boolean")}
_ALL_KINDS = {
    "user_name": _NAME,
    "greeting": _completion("Generate a greeting", 50),
    "client_roots": _ROOTS,
}
_STATELESS: dict[str, AskingBody] = {
    "test_input_required_result_elicitation": _once({"user_name": _NAME}),
    "test_input_required_result_sampling": _once({"capital_question": _CAPITAL}),
    "test_input_required_result_list_roots": _once({"client_roots": _ROOTS}),
    "test_input_required_result_request_state": _once(_CONFIRM, "kept"),
    "test_input_required_result_tampered_state": _once(_CONFIRM, "sealed"),
    "test_input_required_result_multiple_inputs": _once(_ALL_KINDS, "three"),
    "test_input_required_result_multi_round": _two_rounds,
    "test_input_required_result_capabilities": _what_the_client_can,
    "test_streaming_elicitation": _once({"user_name": _NAME}),
}

ASKING_TOOLS: dict[str, tuple[str, AskingBody]] = {
    "test_elicitation": ("Asks for two fields", _elicit),
    "test_elicitation_sep1034_defaults": ("Asks with defaults of every kind", _elicit_defaults),
    "test_elicitation_sep1330_enums": ("Asks with every kind of choice", _elicit_enums),
    "test_sampling": ("Asks the client's model", _sample),
    **{
        name: (f"Asks back: {name.removeprefix('test_').replace('_', ' ')}", _stateless_only(body))
        for name, body in _STATELESS.items()
    },
}


async def asking_prompt(ctx: Context, params: Any) -> GetPromptResult | InputRequiredResult:
    """Render ``test_input_required_result_prompt``, which needs an answer first."""
    answers = params.input_responses or {}
    given = _accepted(answers.get("user_context"))
    if given is None:
        return _required({"user_context": _form("What context should the prompt use?", "context")})
    said = TextContent(text=f"Use this context: {given.get('context', '')}")
    return GetPromptResult(messages=[PromptMessage(role="user", content=said)])
