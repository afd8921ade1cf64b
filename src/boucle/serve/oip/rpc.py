"""The protocol over gRPC. Requests come as bytes and are read here, so that nonsense is INVALID_ARGUMENT."""

import time
from typing import Any

import numpy as np

from boucle import __version__
from boucle.errors import MissingExtra
from boucle.serve.oip.answering import Answering
from boucle.serve.oip.messages import CONTENTS, METHODS, SERVICE, message
from boucle.serve.oip.refusal import Malformed
from boucle.serve.oip.request import Answer, InferRequest, WantedOutput
from boucle.serve.oip.rest import EXTENSIONS, all_ready, index, is_ready
from boucle.serve.oip.rest_body import timeout_of
from boucle.serve.oip.tensor import DATATYPES, Tensor, check_shape, from_raw, to_raw

__all__ = ["Rpc", "decode", "encode"]


class Rpc:
    """The service, as a generic handler of grpc.aio."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def handler(self) -> Any:
        """What a server registers; MissingExtra without grpcio."""
        try:
            import grpc
        except ModuleNotFoundError as error:
            raise MissingExtra("gRPC", "grpcio", "serving") from error

        methods = {}
        for name, (asked, given) in METHODS.items():
            methods[name] = grpc.unary_unary_rpc_method_handler(
                self._method(getattr(self, f"_{name}"), message(asked), grpc.StatusCode),
                response_serializer=message(given).SerializeToString,
            )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _method(self, answer: Any, kind: Any, codes: Any) -> Any:
        open_to_all = kind.DESCRIPTOR.name in {"ServerLiveRequest", "ServerReadyRequest"}

        async def call(raw: bytes, context: Any) -> Any:
            begun = time.perf_counter()
            try:
                self._answering.enter()
                try:
                    if not open_to_all:
                        given = dict(context.invocation_metadata() or ())
                        self._answering.check_allowed(str(given.get("authorization", "")))
                    return await answer(_parsed(raw, kind), begun, context.time_remaining())
                finally:
                    self._answering.leave()
            except Exception as error:  # noqa: BLE001 - the boundary of a request: the others go on
                told = self._answering.refusal(error, "grpc")
                await context.abort(getattr(codes, told.rpc), str(told))

        return call

    async def _ServerLive(self, asked: Any, begun: float, left: float | None) -> Any:  # noqa: N802, ARG002
        return message("ServerLiveResponse")(live=True)

    async def _ServerReady(self, asked: Any, begun: float, left: float | None) -> Any:  # noqa: N802, ARG002
        return message("ServerReadyResponse")(ready=all_ready(self._answering))

    async def _ModelReady(self, asked: Any, begun: float, left: float | None) -> Any:  # noqa: N802, ARG002
        ready = await is_ready(self._answering, asked.name, asked.version)
        return message("ModelReadyResponse")(ready=ready)

    async def _ServerMetadata(self, asked: Any, begun: float, left: float | None) -> Any:  # noqa: N802, ARG002
        return message("ServerMetadataResponse")(name="boucle", version=__version__, extensions=EXTENSIONS)

    async def _ModelMetadata(self, asked: Any, begun: float, left: float | None) -> Any:  # noqa: N802, ARG002
        served = await self._answering.served(asked.name, asked.version)
        return message("ModelMetadataResponse")(**served.metadata(self._answering.shelf.versions(asked.name)))

    async def _RepositoryIndex(self, asked: Any, begun: float, left: float | None) -> Any:  # noqa: N802, ARG002
        found = [one for one in index(self._answering) if one["state"] == "READY" or not asked.ready]
        return message("RepositoryIndexResponse")(models=found)

    async def _ModelInfer(self, asked: Any, begun: float, left: float | None) -> Any:  # noqa: N802
        request = decode(asked)
        answer = await self._answering.answer(
            asked.model_name, asked.model_version, request, "grpc", begun, left
        )
        return encode(answer, request)


def _parsed(raw: bytes, kind: Any) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise Malformed(f"the bytes are no {kind.DESCRIPTOR.name}", why=str(error)) from None


def decode(asked: Any) -> InferRequest:
    """What a ModelInferRequest asks; Malformed when it cannot be understood, or mixes raw and typed contents."""
    raws = asked.raw_input_contents
    if raws and len(raws) != len(asked.inputs):
        raise Malformed(f"{len(raws)} raw contents for {len(asked.inputs)} inputs")
    inputs = []
    for number, one in enumerate(asked.inputs):
        if not raws:
            inputs.append(_typed(one))
            continue
        if one.HasField("contents"):
            raise Malformed(f"input {one.name!r} has both raw and typed contents")
        inputs.append(from_raw(one.name, one.datatype, tuple(one.shape), raws[number]))
    timeout = asked.parameters["timeout"].int64_param if "timeout" in asked.parameters else None
    wanted = tuple(WantedOutput(one.name) for one in asked.outputs)
    return InferRequest(tuple(inputs), asked.id, wanted, bool(raws), timeout_of(timeout))


def _typed(one: Any) -> Tensor:
    count = check_shape(one.name, one.datatype, one.shape)
    field = CONTENTS.get(one.datatype)
    if field is None:
        raise Malformed(f"input {one.name!r}: {one.datatype} comes as raw contents only")
    filled = [told.name for told, _ in one.contents.ListFields()]
    if filled not in ([], [field]):
        raise Malformed(f"input {one.name!r} of {one.datatype} has {', '.join(filled)}, not {field}")
    given = getattr(one.contents, field)
    if len(given) != count:
        raise Malformed(f"input {one.name!r} does not fit its shape", why=f"it has {len(given)} values")
    try:
        values = np.array(list(given), DATATYPES[one.datatype])  # a list: nothing is cut to fit
    except OverflowError as error:
        raise Malformed(f"input {one.name!r} is not of {one.datatype}", why=str(error)) from None
    return Tensor(one.name, one.datatype, tuple(one.shape), values)


def encode(answer: Answer, request: InferRequest) -> Any:
    """A ModelInferResponse: raw contents to those who sent such, and where a datatype has no typed ones."""
    reply = message("ModelInferResponse")(model_name=answer.model, model_version=answer.version, id=answer.id)
    raw = request.binary or any(one.datatype not in CONTENTS for one in answer.outputs)
    for one in answer.outputs:
        into = reply.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        if raw:
            reply.raw_output_contents.append(to_raw(one))
        else:
            getattr(into.contents, CONTENTS[one.datatype]).extend(one.values.tolist())
    return reply
