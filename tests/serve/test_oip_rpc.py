"""The protocol over gRPC: what the messages mean, and that nonsense is refused as such."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.serve.oip.messages import CONTENTS, message
from boucle.serve.oip.refusal import Malformed
from boucle.serve.oip.request import Answer, InferRequest
from boucle.serve.oip.rpc import _parsed, decode, encode
from boucle.serve.oip.tensor import DATATYPES, Tensor, to_raw


def request(*inputs: dict[str, Any], **more: Any) -> Any:
    return message("ModelInferRequest")(model_name="tiny", inputs=list(inputs), **more)


def test_typed_and_raw_contents_mean_the_same() -> None:
    for datatype, field in CONTENTS.items():
        values: list[Any] = [b"x", b""] if datatype == "BYTES" else [1, 0]
        typed = decode(
            request({"name": "a", "datatype": datatype, "shape": [2], "contents": {field: values}})
        )
        kept = np.empty(2, object)
        kept[:] = values
        raw = to_raw(Tensor("a", datatype, (2,), kept if datatype == "BYTES" else np.array(values)))
        other = decode(request({"name": "a", "datatype": datatype, "shape": [2]}, raw_input_contents=[raw]))
        assert typed.inputs[0].values.tolist() == other.inputs[0].values.tolist() == values
        assert (typed.binary, other.binary) == (False, True)


def test_what_does_not_fit_is_refused() -> None:
    one = {"name": "a", "datatype": "FP32", "shape": [1]}
    full = {**one, "contents": {"fp32_contents": [1.0]}}
    for asked, why in (
        (request(full, raw_input_contents=[b"\0\0\0\0"]), "both raw and typed"),
        (request(one, one, raw_input_contents=[b"\0\0\0\0"]), "1 raw contents for 2 inputs"),
        (request(one, raw_input_contents=[b"\0\0\0"]), "has 3 bytes"),
        (request(one), "does not fit its shape"),
        (request({**one, "contents": {"fp64_contents": [1.0]}}), "not fp32_contents"),
        (request({**one, "datatype": "FP16"}), "raw contents only"),
        (request({**one, "datatype": "INT8", "contents": {"int_contents": [300]}}), "not of INT8"),
        (request({**one, "shape": [-1]}), "impossible shape"),
        (request(full, parameters={"timeout": {"int64_param": -4}}), "microseconds"),
    ):
        with pytest.raises(Malformed, match=why):
            decode(asked)


def test_answers_go_out_as_the_question_came() -> None:
    tensor = Tensor("score", "FP64", (2,), np.array([0.5, 1.5]))
    answer = Answer("tiny", "3", "42", (tensor,))
    typed = encode(answer, InferRequest(()))
    assert (typed.id, typed.model_version) == ("42", "3")
    assert list(typed.outputs[0].contents.fp64_contents) == [0.5, 1.5]
    assert not typed.raw_output_contents
    raw = encode(answer, InferRequest((), binary=True))
    assert np.frombuffer(raw.raw_output_contents[0]).tolist() == [0.5, 1.5]
    assert not raw.outputs[0].HasField("contents")
    half = Answer("tiny", "3", "", (Tensor("score", "FP16", (1,), np.array([0.5])),))
    assert encode(half, InferRequest(())).raw_output_contents[0] == b"\x00\x38"


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    with suppress(Malformed):
        decode(_parsed(raw, message("ModelInferRequest")))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*DATATYPES, "X"]),
            st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=4),
            st.dictionaries(
                st.sampled_from(["bool_contents", "uint_contents"]), st.lists(st.integers(0, 1), max_size=4)
            ),
        ),
        max_size=3,
    ),
    st.lists(st.binary(max_size=20), max_size=3),
)
def test_no_request_breaks_the_decoder(inputs: Any, raws: list[bytes]) -> None:
    made = [{"name": "a", "datatype": kind, "shape": shape, "contents": told} for kind, shape, told in inputs]
    with suppress(Malformed):
        decode(request(*made, raw_input_contents=raws))
