"""One call to one upstream and its way back, in the form the client understands."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from upstreams import authorized_call, sent_call
from upstreams.canonical_call import CallSink, CanonicalCall, Outcome
from upstreams.errors import CredentialRefused, NeedsConnection, UpstreamError
from upstreams.models import CredentialKind
from upstreams.result_heads import ResultHead
from upstreams.revisions import Era
from upstreams.sent_call import SentCall
from virtualmcp import raw_members
from virtualmcp.eras import conversion
from virtualmcp.errors import (
    HEADER_MISMATCH,
    METHOD_NOT_FOUND,
    URL_ELICITATION_REQUIRED,
    RequestRefused,
)
from virtualmcp.listed_entries import Kind
from virtualmcp.raw_members import Members, NotAnObject
from virtualmcp.routing import (
    connect_prompts,
    fan_out,
    long_tasks,
    orphaned_calls,
    parameter_headers,
    parked_calls,
    parked_retries,
    question_policy,
    questions,
    rerun_calls,
    resource_routes,
    task_results,
    upstream_failures,
)
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_abilities import takes_tasks, takes_url_errors
from virtualmcp.routing.client_request import Answer, ClientRequest
from virtualmcp.routing.connect_prompts import CallMade, PageToOpen
from virtualmcp.routing.list_reading import error_code
from virtualmcp.routing.parameter_headers import Headers
from virtualmcp.routing.parked_calls import ParkedCall
from virtualmcp.routing.question_policy import CapabilityMissing
from virtualmcp.routing.questions import QuestionUnanswered
from virtualmcp.routing.relay_sink import RelaySink
from virtualmcp.secret_redaction import clean_json, secrets_of
from virtualmcp.server_identity import raw_server_info

# What nothing is asked about and no task is made of, once its result says that it is complete.
_FINAL_AT_ONCE = frozenset({conversion.CALL, conversion.READ})
_OWN_ACCOUNT = frozenset({CredentialKind.USER_KEY, CredentialKind.USER_OAUTH})


class _Contents(msgspec.Struct, gc=False):
    contents: list[msgspec.Raw] = []


_contents = msgspec.json.Decoder(_Contents)


def relay(
    request: ClientRequest, sink: CallSink, target: Target, headers: Headers = ()
) -> Coroutine[Any, Any, Answer]:
    """Make the call as this person and return its result or error.

    Never raises for faults of the upstream. Nothing is retried that may have been carried out.
    """
    facts = target.choice.upstream
    call = CallMade(facts.id, facts.key, target.name, target.arguments)
    if target.retry or request.orphan is not None or parked_calls.may_be_asked(request, facts):
        return _asking(request, sink, target, headers, call)
    return _made(request, sink, target, target.params, headers, call)


def send(
    request: ClientRequest, target: Target, may_go: Callable[[], bool], told: Callable[[], None]
) -> SentCall | None:
    """Send a call that needs nothing to be awaited; as ``sent_call.send``."""
    facts = target.choice.upstream
    if target.retry or parked_calls.may_be_asked(request, facts):
        return None
    call = _canonical(request, target, target.params, ())
    return sent_call.send(request.holder.user_id, facts, call, may_go, told)


def answer_at_once(request: ClientRequest, target: Target, sent: SentCall) -> Answer | None:
    """Return the answer to a sent call if it has come and is what most calls come to.

    Raises:
        NotAnObject: it can't be put in the form of the client's revision.
    """
    outcome = sent.outcome()
    return None if outcome is None else _complete(request, target, outcome)


def go_on(
    request: ClientRequest, sink: CallSink, target: Target, sent: SentCall
) -> Coroutine[Any, Any, Answer]:
    """Go on with a call that was sent, as ``relay``."""
    facts = target.choice.upstream

    def carried(inner: CallSink) -> Coroutine[Any, Any, Outcome]:
        return authorized_call.call_as(request.holder.user_id, facts, sent.call, inner, sent)

    made = CallMade(facts.id, facts.key, target.name, target.arguments)
    return _made(request, sink, target, target.params, (), made, send=carried)


async def _asking(
    request: ClientRequest, sink: CallSink, target: Target, headers: Headers, call: CallMade
) -> Answer:
    """Make a call that brings answers to questions, may come to be parked with some, or was begun
    by a process that died."""
    params, declined = target.params, False
    if target.retry:
        try:
            retry = questions.resume(request, raw_members.read(params), call)
            if retry.parked:
                return await _retry(request, sink, target, call, retry)
        except RequestRefused as refused:
            return upstream_failures.refusal(refused)
        params, declined = raw_members.write(retry.members), retry.declined
    if request.orphan is not None:
        return await _orphaned(request, sink, target, headers, call)
    if parked_calls.may_be_asked(request, target.choice.upstream):
        parked = ParkedCall(request, functools.partial(questions.held, request, call))
        keeping = rerun_calls.keeping(request, target, parked.id, parked)
        return await parked.first_round(
            lambda _: _made(request, keeping, target, params, headers, call, declined=declined),
            sink,
        )
    return await _made(request, sink, target, params, headers, call, declined=declined)


async def _retry(
    request: ClientRequest, sink: CallSink, target: Target, call: CallMade, retry: questions.Retry
) -> Answer:
    """Go on with a call that is held, here or on another node, for the answers in this retry.

    Raises:
        ParamsInvalid: the answers are not an object.
    """
    answers = parked_retries.answers_in(retry.members.get("inputResponses"))

    def made(inner: CallSink, send: parked_retries.Send) -> Coroutine[Any, Any, Answer]:
        return _made(request, inner, target, target.params, (), call, send=send, resumed=True)

    return await parked_retries.go_on(
        parked_retries.Retry(
            request,
            target,
            retry.parked,
            _canonical(request, target, target.params, ()),
            made,
            functools.partial(questions.held, request, call),
        ),
        answers,
        sink,
    )


async def _orphaned(
    request: ClientRequest, sink: CallSink, target: Target, headers: Headers, call: CallMade
) -> Answer:
    """Go on with a call whose process died."""

    def made(inner: CallSink, send: parked_retries.Send) -> Coroutine[Any, Any, Answer]:
        return _made(request, inner, target, target.params, headers, call, send=send, resumed=True)

    canonical = _canonical(request, target, target.params, headers)
    return await orphaned_calls.answer(request, target, canonical, made, sink)


async def _made(
    request: ClientRequest,
    sink: CallSink,
    target: Target,
    params: bytes,
    headers: Headers,
    call: CallMade,
    *,
    declined: bool = False,
    send: parked_retries.Send | None = None,
    resumed: bool = False,
) -> Answer:
    """Make the call, or with ``send`` go on with one that is under way, and word what comes.

    ``resumed``: another process began it.
    """
    facts = target.choice.upstream
    try:
        inner = RelaySink(request, target.choice, sink, resumed=resumed)
        if send is not None:
            outcome = await send(inner)
        else:
            outcome = await _send(request, target, params, headers, inner)
        answer = _complete(request, target, outcome)
        if answer is not None:
            return answer
        return await _rounds(request, inner, target, params, headers, call, outcome)
    except RequestRefused as refused:
        return upstream_failures.refusal(refused)
    except NeedsConnection as needed:
        pages = [connect_prompts.connect_page(request, needed)]
        return connect_prompts.ask_to_open(request, call, pages, declined=declined)
    except CredentialRefused as refusal:
        return _refused(request, target, call, refusal, declined=declined)
    except UpstreamError as error:
        return upstream_failures.from_exception(facts, error)
    except CapabilityMissing as missing:
        return upstream_failures.capability_missing(request, facts, missing.required)
    except QuestionUnanswered as unanswered:
        if unanswered.error:
            return _error(request, target, Outcome(error=unanswered.error))
        return upstream_failures.unusable(facts, unanswered.message)
    except NotAnObject:
        return upstream_failures.unusable(facts, "answered with something that is not a result.")


def _complete(request: ClientRequest, target: Target, outcome: Outcome) -> Answer | None:
    """Return the answer where the outcome is a plain result, what most calls come to."""
    head = outcome.head
    if head is not None and request.method in _FINAL_AT_ONCE and head.kind == "complete":
        return _result(request, target, outcome, head)
    return None


async def _rounds(
    request: ClientRequest,
    sink: CallSink,
    target: Target,
    params: bytes,
    headers: Headers,
    call: CallMade,
    outcome: Outcome,
) -> Answer:
    """Go on from the first outcome until there is something final for this client."""
    facts = target.choice.upstream
    for number in range(questions.MOST_ROUNDS):
        if number:
            outcome = await _send(request, target, params, headers, sink)
        if outcome.error:
            if error_code(outcome.error) == HEADER_MISMATCH and not number:
                headers = await parameter_headers.after_refresh(request, target)
                outcome = await _send(request, target, params, headers, sink)
            if await _runs_as_task_only(request, target, outcome):
                outcome = await _as_task(request, target, params, headers, sink)
            if outcome.error:
                return _error(request, target, outcome)
        if request.method in task_results.METHODS:
            return Answer(result=await task_results.told(request, target, outcome))
        head = outcome.head or conversion.read_head(outcome.result)
        kind = head.kind if outcome.modern else "complete"
        if kind == "task" and request.method == conversion.CALL:
            if takes_tasks(request):
                return Answer(result=await task_results.told(request, target, outcome))
            outcome = await long_tasks.drive(request, outcome, target.choice, sink)
            return _final(request, target, outcome)
        if kind == "complete":
            return _result(request, target, outcome, head)
        if kind != "input_required" or not _may_ask(request):
            break
        if request.era is Era.MODERN:
            raw = clean_json(outcome.result, secrets_of(request.holder.user_id, facts))
            relayed = questions.relayed(request, raw, call, target.choice)
            await questions.counted(request, target.choice, outcome.result)
            return Answer(result=relayed)
        following: Members = raw_members.read(params)
        params = raw_members.write(
            await questions.asked(outcome.result, following, sink, number, facts)
        )
    return upstream_failures.unusable(facts, "did not come to a result that can be passed on.")


def _final(request: ClientRequest, target: Target, outcome: Outcome) -> Answer:
    if outcome.error:
        return _error(request, target, outcome)
    return _result(request, target, outcome, conversion.read_head(outcome.result))


async def _runs_as_task_only(request: ClientRequest, target: Target, outcome: Outcome) -> bool:
    """Tell whether a stateful server refused a tool that it lists as one that runs as a task
    only; nothing was carried out then (2025-11-25, Tasks, Tool-Level Negotiation)."""
    refused = bool(outcome.error) and error_code(outcome.error) == METHOD_NOT_FOUND
    if not refused or outcome.modern or request.method != conversion.CALL:
        return False
    user_id, facts, client = request.holder.user_id, target.choice.upstream, request.client
    listed = fan_out.remembered_list(user_id, facts, client, Kind.TOOLS)
    if listed is None:
        listed = await fan_out.read_now(user_id, facts, client, Kind.TOOLS)
    entry = listed.by_identity.get(target.name)
    return entry is not None and entry.task_only


async def _as_task(
    request: ClientRequest, target: Target, params: bytes, headers: Headers, sink: CallSink
) -> Outcome:
    """Make the call as a task and see it to its end."""
    await sink.resumable(None)
    driving = long_tasks.DrivingSink(sink)
    made = await _send(request, target, long_tasks.as_task(params), headers, driving)
    if made.error or "task" not in raw_members.read(made.result):
        return made
    return await long_tasks.drive(request, made, target.choice, sink)


def _may_ask(request: ClientRequest) -> bool:
    return request.method in (conversion.CALL, conversion.PROMPT, conversion.READ)


def _send(
    request: ClientRequest, target: Target, params: bytes, headers: Headers, sink: CallSink
) -> Coroutine[Any, Any, Outcome]:
    call = _canonical(request, target, params, headers)
    return authorized_call.call_as(request.holder.user_id, target.choice.upstream, call, sink)


def _canonical(
    request: ClientRequest, target: Target, params: bytes, headers: Headers
) -> CanonicalCall:
    return CanonicalCall(
        method=request.method,
        params=params,
        params_are_modern=request.era is Era.MODERN
        and not question_policy.says_too_much(request, target.choice, params),
        facts=question_policy.declared_to(request, target.choice),
        name=target.name,
        progress_token=request.progress_token,
        log_level=request.log_level,
        principal=str(request.holder.user_id),
        owner=request.owner,
        param_headers=headers,
    )


def _result(request: ClientRequest, target: Target, outcome: Outcome, head: ResultHead) -> Answer:
    """Return a final result with its URIs mapped, in the form of the client's revision."""
    facts, method = target.choice.upstream, request.method
    raw = clean_json(outcome.result, secrets_of(request.holder.user_id, facts))
    if raw is not outcome.result:
        head = conversion.read_head(raw)
    if method == conversion.READ and request.era is Era.MODERN and _is_empty(raw, head):
        return upstream_failures.not_found(request, target.asked)
    if method != conversion.CALL or not head.plain:
        # What the head tells of the result as a whole stays true.
        raw = _mapped(request, target, raw, head)
    if request.era is Era.MODERN:
        info = raw_server_info(request.server)
        raw, front = conversion.to_modern(
            raw, method, head, modern_upstream=outcome.modern, server_info=info
        )
        return Answer(result=raw, front=front)
    revision, modern = request.client.revision, outcome.modern
    raw = conversion.to_legacy(raw, method, head, revision=revision, modern_upstream=modern)
    return Answer(result=raw)


def _mapped(request: ClientRequest, target: Target, raw: bytes, head: ResultHead) -> bytes:
    """Return a result with its URIs as the public knows them."""
    facts = target.choice.upstream
    mapping = request.server.mapping(facts)
    if request.method == conversion.CALL:
        raw = mapping.call_result(raw)
    elif request.method == conversion.PROMPT:
        raw = mapping.prompt_result(raw)
    elif request.method == conversion.READ:
        raw = mapping.read_result(raw, head.read, asked=target.asked, read=target.name)
    elif request.method == conversion.COMPLETE:
        raw = mapping.completion(raw)
    resource_routes.note_returned(request, mapping.web, facts.id)
    return raw


def _is_empty(raw: bytes, head: ResultHead) -> bool:
    """Tell whether nothing was read; that must not look like a resource without contents (a38)."""
    if head.read is not None:
        return not head.read
    try:
        return not _contents.decode(raw).contents
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotAnObject("contents is not an array") from error


def _error(request: ClientRequest, target: Target, outcome: Outcome) -> Answer:
    facts = target.choice.upstream
    secrets = secrets_of(request.holder.user_id, facts)
    if error_code(outcome.error) == URL_ELICITATION_REQUIRED and not takes_url_errors(request):
        pages = _pages(clean_json(outcome.error, secrets), facts.title)
        if pages:
            call = CallMade(facts.id, facts.key, target.name, target.arguments)
            return connect_prompts.ask_to_open(request, call, pages)
    return upstream_failures.from_json_rpc(
        request, facts, outcome.error, modern_upstream=outcome.modern, secrets=secrets
    )


def _pages(error: bytes, title: str) -> list[PageToOpen]:
    """Return the pages of an upstream's -32042; only such as a browser opens from the web."""
    found = raw_members.value(error)
    data = found.get("data") if isinstance(found, dict) else None
    listed = data.get("elicitations") if isinstance(data, dict) else None
    pages = []
    for item in listed if isinstance(listed, list) else []:
        url = item.get("url") if isinstance(item, dict) else None
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            said = item.get("message")
            message = said if isinstance(said, str) else "It asks you to open a page."
            pages.append(PageToOpen(url, f"{title}: {message}"))
    return pages[:5]


def _refused(
    request: ClientRequest,
    target: Target,
    call: CallMade,
    refusal: CredentialRefused,
    *,
    declined: bool,
) -> Answer:
    """An account the upstream no longer accepts is connected again; a shared credential is the
    administrator's to renew."""
    facts = target.choice.upstream
    if facts.credential_kind not in _OWN_ACCOUNT:
        return upstream_failures.from_exception(facts, refusal)
    needed = NeedsConnection(
        refusal.message,
        upstream_id=facts.id,
        upstream_key=facts.key,
        title=facts.title,
        reason="scope" if refusal.code == "scope_insufficient" else "reconnect",
    )
    pages = [connect_prompts.connect_page(request, needed)]
    return connect_prompts.ask_to_open(request, call, pages, declined=declined)
