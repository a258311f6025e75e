"""The conformance upstream's tools that ask back, in the way of whichever era they are called in.

A stateful client is sent requests while the call runs; a stateless one is told
``input_required`` and calls again with the answers (protocol.md 2.3.5). Every tool works both
ways, so that a bridge between the eras has something to carry.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    CreateMessageRequest,
    CreateMessageResult,
    ElicitRequest,
    ElicitResult,
    GetPromptResult,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    PromptMessage,
    TextContent,
)

from tests.conformance.upstream_content import MODERN, Context, text

Questions = dict[str, dict[str, Any]]
Answers = dict[str, Any]
Answered = CallToolResult | InputRequiredResult
AskingBody = Callable[[Context, Any], Awaitable[Answered]]

_KINDS: dict[str, tuple[Any, Any]] = {
    "elicitation/create": (ElicitRequest, ElicitResult),
    "sampling/createMessage": (CreateMessageRequest, CreateMessageResult),
    "roots/list": (ListRootsRequest, ListRootsResult),
}


# Asking ----------------------------------------------------------------------------
async def ask(
    ctx: Context, params: Any, questions: Questions, state: str | None = None
) -> Answers | InputRequiredResult:
    """Return the answer to every question, or what a stateless client must be told instead."""
    if ctx.protocol_version != MODERN:
        given = await asyncio.gather(*(_ask_on_stream(ctx, one) for one in questions.values()))
        return dict(zip(questions, given, strict=True))
    given = params.input_responses or {}
    for key, one in questions.items():
        if key not in given:
            return _required(questions, state)
        if one["method"] == "elicitation/create" and accepted(given[key]) is None:
            return _required(questions, state)
    return {key: given[key] for key in questions}


async def _ask_on_stream(ctx: Context, question: dict[str, Any]) -> Any:
    request, result = _KINDS[question["method"]]
    where = ServerMessageMetadata(related_request_id=ctx.request_id)
    made = request.model_validate(question)
    return await ctx.session.send_request(made, result, metadata=where)


def _required(questions: Questions, state: str | None) -> InputRequiredResult:
    told = {"inputRequests": questions, "requestState": state}
    return InputRequiredResult.model_validate(told)


def accepted(answer: Any) -> dict[str, Any] | None:
    """Return the content of an accepted form, or None where there is none to use."""
    if isinstance(answer, ElicitResult) and answer.action == "accept":
        return dict(answer.content or {})
    return None


def _schema_form(message: str, fields: dict[str, Any], *required: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": fields}
    if required:
        schema["required"] = list(required)
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": message, "requestedSchema": schema},
    }


def _form(message: str, field: str, kind: str = "string") -> dict[str, Any]:
    return _schema_form(message, {field: {"type": kind}}, field)


def _completion(prompt: str, tokens: int) -> dict[str, Any]:
    message = {"role": "user", "content": {"type": "text", "text": prompt}}
    return {
        "method": "sampling/createMessage",
        "params": {"messages": [message], "maxTokens": tokens},
    }


_ROOTS: dict[str, Any] = {"method": "roots/list", "params": {}}


# Tools that the suite calls as a stateful client ---------------------------------------
async def _one_form(ctx: Context, params: Any, form: dict[str, Any]) -> Answered:
    got = await ask(ctx, params, {"form": form})
    if isinstance(got, InputRequiredResult):
        return got
    content = json.dumps(got["form"].content or {})
    return text(f"Elicitation completed: action={got['form'].action}, content={content}")


async def _elicit(ctx: Context, params: Any) -> Answered:
    fields = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    message = (params.arguments or {}).get("message", "Please answer")
    return await _one_form(ctx, params, _schema_form(message, fields, "username", "email"))


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
    return await _one_form(ctx, params, _schema_form("Check the defaults", fields))


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
    return await _one_form(ctx, params, _schema_form("Choose", fields))


async def _sample(ctx: Context, params: Any) -> Answered:
    prompt = (params.arguments or {}).get("prompt", "")
    got = await ask(ctx, params, {"completion": _completion(prompt, 100)})
    if isinstance(got, InputRequiredResult):
        return got
    content = got["completion"].content
    said = content.text if isinstance(content, TextContent) else "something"
    return text(f"LLM response: {said}")


# Tools that the suite calls as a stateless client --------------------------------------
def _once(questions: Questions, state: str | None = None) -> AskingBody:
    """Make a tool that asks ``questions`` until every one is answered, checking ``state``."""

    async def body(ctx: Context, params: Any) -> Answered:
        got = await ask(ctx, params, questions, state)
        if isinstance(got, InputRequiredResult):
            return got
        stateless = ctx.protocol_version == MODERN
        if stateless and state is not None and params.request_state != state:
            raise MCPError(INVALID_PARAMS, "The state does not belong to this call")
        given = {key: one.model_dump(mode="json", exclude_none=True) for key, one in got.items()}
        return text(f"{'state-ok ' if state else ''}{json.dumps(given)}")

    return body


async def _two_rounds(ctx: Context, params: Any) -> Answered:
    first = {"step1": _form("Step 1: What is your name?", "name")}
    second = {"step2": _form("Step 2: What is your favorite color?", "color")}
    if ctx.protocol_version != MODERN or params.request_state != "second":
        got = await ask(ctx, params, first, "first")
        if isinstance(got, InputRequiredResult):
            return got
    got = await ask(ctx, params, second, "second")
    if isinstance(got, InputRequiredResult):
        return got
    return text(f"Done: {json.dumps(accepted(got['step2']))}")


async def _what_the_client_can(ctx: Context, params: Any) -> Answered:
    can = ctx.session.client_capabilities
    possible: Questions = {}
    if can is not None and can.sampling is not None:
        possible["question"] = _completion("Say hello", 20)
    if can is not None and can.elicitation is not None:
        possible["form"] = _form("Say hello", "hello")
    got = await ask(ctx, params, possible)
    return got if isinstance(got, InputRequiredResult) else text("Nothing more to ask")


_NAME = _form("What is your name?", "name")
_CAPITAL = _completion("What is the capital of France?", 100)
_CONFIRM = {"confirm": _form("Please confirm", "ok", "boolean")}
_ALL_KINDS = {
    "user_name": _NAME,
    "greeting": _completion("Generate a greeting", 50),
    "client_roots": _ROOTS,
}

ASKING_TOOLS: dict[str, tuple[str, AskingBody]] = {
    "test_elicitation": ("Asks for two fields", _elicit),
    "test_elicitation_sep1034_defaults": ("Asks with defaults of every kind", _elicit_defaults),
    "test_elicitation_sep1330_enums": ("Asks with every kind of choice", _elicit_enums),
    "test_sampling": ("Asks the client's model", _sample),
    "test_input_required_result_elicitation": ("Asks for a name", _once({"user_name": _NAME})),
    "test_input_required_result_sampling": (
        "Asks for a capital",
        _once({"capital_question": _CAPITAL}),
    ),
    "test_input_required_result_list_roots": ("Asks for roots", _once({"client_roots": _ROOTS})),
    "test_input_required_result_request_state": ("Asks with a state", _once(_CONFIRM, "kept")),
    "test_input_required_result_tampered_state": (
        "Asks with a state that must come back as it was",
        _once(_CONFIRM, "sealed"),
    ),
    "test_input_required_result_multiple_inputs": (
        "Asks three things at once",
        _once(_ALL_KINDS, "three"),
    ),
    "test_input_required_result_multi_round": ("Asks twice", _two_rounds),
    "test_input_required_result_capabilities": (
        "Asks what the client declares",
        _what_the_client_can,
    ),
    "test_streaming_elicitation": ("Asks for a name", _once({"user_name": _NAME})),
}


async def asking_prompt(ctx: Context, params: Any) -> GetPromptResult | InputRequiredResult:
    """Render ``test_input_required_result_prompt``, which needs an answer first."""
    question = {"user_context": _form("What context should the prompt use?", "context")}
    got = await ask(ctx, params, question)
    if isinstance(got, InputRequiredResult):
        return got
    given = accepted(got["user_context"]) or {}
    said = TextContent(text=f"Use this context: {given.get('context', '')}")
    return GetPromptResult(messages=[PromptMessage(role="user", content=said)])
