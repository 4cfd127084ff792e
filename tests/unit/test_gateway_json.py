"""JSON to messages and back: what etcd's gateway takes and gives, to the letter."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from proto.kv_pb2 import Event, KeyValue
from proto.rpc_pb2 import (
    AuthUserGetRequest,
    HashResponse,
    LeaseGrantResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
    TxnRequest,
    WatchRequest,
    WatchResponse,
)
from services.gateway_json import JsonFault, encode, fill, values
from services.go_json import STEPS_MAX

if TYPE_CHECKING:
    from google.protobuf.message import Message


def read(message: Message, text: str) -> Message:
    """Fill *message* with the first value of *text*."""
    fill(message, next(values(text.encode())))
    return message


def test_names_numbers_and_bytes_go_out_as_etcd_writes_them() -> None:
    """Names as in the .proto, 64-bit numbers in quotes, 32-bit ones bare, bytes in base64, enums by name, no zeros."""
    header = ResponseHeader(cluster_id=1 << 63, revision=-1)
    assert encode(header) == '{"cluster_id":"9223372036854775808","revision":"-1"}'
    assert encode(LeaseGrantResponse(ID=5, TTL=6)) == '{"ID":"5","TTL":"6"}'
    assert encode(HashResponse(hash=7)) == '{"hash":7}'
    events = [Event(type=Event.DELETE, kv=KeyValue(key=b"\xff\xfe")), Event(kv=KeyValue())]
    assert encode(WatchResponse(created=True, events=events)) == (
        '{"created":true,"events":[{"type":"DELETE","kv":{"key":"//4="}},{"kv":{}}]}'
    )
    assert encode(RangeResponse(more=False, count=0)) == "{}"


@given(
    st.builds(RangeResponse, kvs=st.lists(st.builds(KeyValue, key=st.binary(), value=st.binary())), count=st.just(3))
)
def test_answers_are_protobufs_own_json(message: RangeResponse) -> None:
    """Protobuf's own mapping reads the same message from our JSON."""
    assert json_format.Parse(encode(message), RangeResponse()) == message


@given(st.binary(), st.booleans())
def test_bytes_come_in_any_base64(raw: bytes, padded: bool) -> None:
    """Of the standard or the URL alphabet, with padding or without."""
    for encoder in (b64encode, urlsafe_b64encode):
        text = encoder(raw).decode()
        assert read(PutRequest(), f'{{"key":"{text if padded else text.rstrip("=")}"}}') == PutRequest(key=raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"range_end":"Yg==","limit":"5"}', RangeRequest(range_end=b"b", limit=5)),
        ('{"rangeEnd":"Yg==","limit":5}', RangeRequest(range_end=b"b", limit=5)),
        ('{"sort_order":"DESCEND","sortTarget":1}', RangeRequest(sort_order=2, sort_target=1)),  # type: ignore[arg-type]  # enum by number
        ('{"sort_order":77}', RangeRequest(sort_order=77)),  # type: ignore[arg-type]  # enum by number
        ('{"limit":null,"key":null,"nobody":{"knows":[1]}}', RangeRequest()),
        ("null", RangeRequest()),
        ('{"limit":"null"}', RangeRequest()),
        ('{"limit":" 7 "}', RangeRequest(limit=7)),
        ('{"limit":"-9223372036854775808"}', RangeRequest(limit=-(1 << 63))),
    ],
)
def test_requests_are_read_as_leniently_as_etcd_does(text: str, message: RangeRequest) -> None:
    """Both names, numbers in quotes or without, null as nothing, and unknown fields."""
    assert read(RangeRequest(), text) == message


def test_an_empty_member_of_a_choice_is_chosen() -> None:
    """`{"create_request":{}}` is a create request, though all of it is zero."""
    request = read(WatchRequest(), '{"create_request":{}}')
    assert isinstance(request, WatchRequest)
    assert request.WhichOneof("request_union") == "create_request"
    nested = read(TxnRequest(), '{"success":[{"requestTxn":{"failure":[null]}}]}')
    assert isinstance(nested, TxnRequest)
    assert nested.success[0].request_txn.failure[0].WhichOneof("request") is None


def test_lone_surrogates_do_not_get_in() -> None:
    """They stand in no UTF-8, so they are replaced, as Go does."""
    request = read(AuthUserGetRequest(), '{"name":"\\ud800x"}')
    assert isinstance(request, AuthUserGetRequest)
    assert request.name == "\ufffdx"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"),
        ("5", "json: cannot unmarshal number into Go value of type map[string]json.RawMessage"),
        ('{"key":5}', "json: cannot unmarshal number into Go value of type []uint8"),
        ('{"key":"Z*m9"}', "illegal base64 data at input byte 1"),
        ('{"key":"Zm9vY"}', "illegal base64 data at input byte 4"),
        ('{"key":"YSBi="}', "illegal base64 data at input byte 4"),
        ('{"limit":1.5}', "json: cannot unmarshal number 1.5 into Go value of type int64"),
        (
            '{"limit":"9223372036854775808"}',
            "json: cannot unmarshal number 9223372036854775808 into Go value of type int64",
        ),
        ('{"limit":"x"}', "invalid character 'x' looking for beginning of value"),
        ('{"limit":""}', "unexpected end of JSON input"),
        ('{"limit":"5 x"}', "invalid character 'x' after top-level value"),
        ('{"limit":true}', "json: cannot unmarshal bool into Go value of type int64"),
        ('{"serializable":1}', "json: cannot unmarshal number into Go value of type bool"),
        ('{"sort_order":"BAD"}', 'unknown value "\\"BAD\\"" for enum etcdserverpb.RangeRequest.SortOrder'),
        ('{"key":', "unexpected EOF"),
        ('{"key":"Zm9v",}', "invalid character '}' looking for beginning of object key string"),
        ('{"key" 1}', "invalid character '1' after object key"),
        ('{"key":1 2}', "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ('{"key":"\\x"}', "invalid character 'x' in string escape code"),
        ('{"key":"\\u00g0"}', "invalid character 'g' in \\u hexadecimal character escape"),
        ('{"key":"\n"}', "invalid character '\\n' in string literal"),
        ('{"a":-x}', "invalid character 'x' in numeric literal"),
        ('{"a":1.x}', "invalid character 'x' after decimal point in numeric literal"),
        ('{"a":1ex}', "invalid character 'x' in exponent of numeric literal"),
        ('{"a":trup}', "invalid character 'p' in literal true (expecting 'e')"),
        ("{\"a\":'b'}", "invalid character '\\'' looking for beginning of value"),
        ("[" * 30_000, "exceeded max depth"),
        ("[" * 100_000, "exceeded max depth"),
        ("[" + "1," * STEPS_MAX, "invalid JSON"),
        ('"' + "\\n" * (STEPS_MAX + 1), "invalid JSON"),
        ('{"key":"' + "x" * 200_000, "unexpected EOF"),
        ('{"key":"' + "x" * 200_000 + '"]', "invalid character ']' after object key:value pair"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_wrong_is_said_as_go_says_it(text: str, reason: str) -> None:
    """Clients show these texts, and tests of clients compare them."""
    with pytest.raises(JsonFault) as fault:
        read(RangeRequest(), text)
    assert str(fault.value) == reason


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    """Nothing that a client sends raises anything else."""
    with suppress(JsonFault):
        for value in values(body):
            fill(TxnRequest(), value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["success", "compare", "requestPut", "request_txn", "key", "lease"]), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_taken_or_refused(value: object) -> None:
    """However it is nested, and whatever stands where."""
    with suppress(JsonFault):
        read(TxnRequest(), json.dumps(value))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff\xfe", "invalid character '\u00ff' looking for beginning of value"),
        (b'{"a":1} \xe9', "invalid character '\u00e9' looking for beginning of value"),
        ("\u00e9".encode(), "invalid character '\u00c3' looking for beginning of value"),
    ],
)
def test_bytes_that_cannot_be_are_named_singly(body: bytes, reason: str) -> None:
    """Go looks at bytes, not at characters, and so do the texts that clients show."""
    with pytest.raises(JsonFault) as fault:
        list(values(body))
    assert str(fault.value) == reason


def test_bytes_that_are_no_utf_8_are_replaced_one_by_one() -> None:
    """As Go does it: a name of two broken bytes has two characters."""
    assert list(values(b'{"name":"a\xe2\x82"}')) == [{"name": "a\ufffd\ufffd"}]
