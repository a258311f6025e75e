"""The event stream parser: every framing the standard allows, within its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstreams.event_stream import EventStream, EventTooLarge, ServerEvent


def parsed(*pieces: bytes) -> list[ServerEvent]:
    stream = EventStream()
    return [event for piece in pieces for event in stream.feed(piece)]


def test_one_data_line_is_one_event():
    assert parsed(b'data: {"a":1}\n\n') == [ServerEvent(b'{"a":1}')]


def test_the_event_after_the_first_takes_the_short_way_with_the_same_result():
    assert parsed(b"data: 1\n\n", b"data: 2\n\n", b"data:3\n\n") == [
        ServerEvent(b"1"),
        ServerEvent(b"2"),
        ServerEvent(b"3"),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end_is_understood(end):
    block = end.join([b"event: message", b"id: 7", b"data: a", b"data: b", b"", b""])
    assert parsed(block) == [ServerEvent(b"a\nb", b"message", b"7")]


def test_mixed_line_ends_are_understood():
    assert parsed(b"data: a\r\n\ndata: b\n\r\ndata: c\r\r") == [
        ServerEvent(b"a"),
        ServerEvent(b"b"),
        ServerEvent(b"c"),
    ]


@given(st.lists(st.integers(1, 7), max_size=40), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_where_pieces_are_cut_changes_nothing(cuts, end):
    whole = end.join(
        [b"\xef\xbb\xbf: hello", b"", b"id: 1", b"data: x", b"", b"retry: 50", b"data: y", b"", b""]
    )
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    assert parsed(*pieces, whole[at:]) == parsed(whole)
    assert parsed(whole) == [ServerEvent(b"x", id=b"1"), ServerEvent(b"y", retry=50)]


def test_comments_and_unknown_fields_are_nothing():
    assert parsed(b": keep-alive\n\n:\n\nfoo: bar\n\n\n\ndata: x\n\n") == [ServerEvent(b"x")]


def test_a_priming_event_shows_its_id_and_retry_time():
    assert parsed(b"id: e1\nretry: 3000\ndata:\n\n") == [ServerEvent(b"", id=b"e1", retry=3000)]


def test_retry_that_is_no_number_and_id_with_nul_are_ignored():
    assert parsed(b"retry: soon\nid: a\x00b\ndata: x\n\n") == [ServerEvent(b"x")]


def test_an_unfinished_event_is_kept_back():
    assert parsed(b"data: x\n") == []
    assert parsed(b"data: x\n", b"\n") == [ServerEvent(b"x")]


def test_an_event_at_the_limit_passes_and_one_byte_more_does_not():
    at_limit = b"data: " + b"x" * 94
    assert EventStream(limit=100).feed(at_limit + b"\n\n")[0].data == b"x" * 94
    with pytest.raises(EventTooLarge):
        EventStream(limit=100).feed(at_limit + b"x\n\n")
    started = EventStream(limit=100)
    started.feed(b"data: 1\n\n")
    with pytest.raises(EventTooLarge):
        started.feed(at_limit + b"xxx\n\n")


def test_a_line_without_end_is_cut_off_at_the_limit():
    stream, fed = EventStream(limit=1000), 0
    with pytest.raises(EventTooLarge):
        for _ in range(100):
            stream.feed(b"x" * 100)
            fed += 100
    assert fed <= 1000
