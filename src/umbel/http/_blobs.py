"""Blobs as they stream: written from mapped memory, and taken in as they arrive."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Final

from aiohttp import ClientPayloadError, web

from umbel.errors import BadRange, HttpError, WrongOffset
from umbel.http import _buffers, _faults
from umbel.http._calls import BlobState, Call, Hooks, Sink, Source
from umbel.http._guard import Phase, connection_of

SLICE: Final = 256 * 1024
BATCH: Final = 2**20
BYTES: Final = "application/octet-stream"

_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))", re.ASCII)


async def read(request: web.BaseRequest) -> bytes:
    """Return the next piece of a body, nothing at its end.

    Raises ``ConnectionError`` if the client is gone.
    """
    connection = connection_of(request)
    if connection.ended and not request.content.is_eof():
        connection.abort()
        raise ConnectionError("the client has ended in the middle of a body")
    try:
        piece, _ = await request.content.readchunk()
    except (ClientPayloadError, web.RequestPayloadError) as error:
        raise HttpError("expected as many bytes as Content-Length says, got fewer", at="body") from error
    return piece


def state(blob: BlobState) -> web.StreamResponse:
    """Answer how much of a blob is here."""
    if blob.size is None:
        return web.Response(status=204, headers={**_faults.HEADERS, "Upload-Offset": str(blob.offset)})
    response = web.StreamResponse(headers={**_faults.HEADERS, "Accept-Ranges": "bytes"})
    response.content_type = BYTES
    response.content_length = blob.size
    return response


def span(header: str | None, size: int, at: str) -> tuple[int, int]:
    """Return the first byte and the one after the last that a ``Range`` header asks of ``size`` bytes.

    Raises ``BadRange`` for several ranges, and for one that is not there.
    """
    if header is None:
        return 0, size
    match = _RANGE.fullmatch(header)
    first, last, tail = match.groups() if match else (None, None, None)
    if tail is not None and int(tail) > 0 and size > 0:
        return max(0, size - int(tail)), size
    end = min(size, int(last) + 1) if last else size
    if first is None or not int(first) < end:
        raise BadRange(f"expected one range of bytes within {size}, got {header!r:.80}", at=at)
    return int(first), end


async def send(request: web.BaseRequest, call: Call, source: Source, hooks: Hooks) -> web.StreamResponse:
    """Send a blob, or the range of it that was asked for."""
    try:
        data = memoryview(source.data)
        try:
            return await _send(request, call, data, hooks)
        finally:
            data.release()
    finally:
        source.close()


async def _send(request: web.BaseRequest, call: Call, data: memoryview, hooks: Hooks) -> web.StreamResponse:
    digest = call.params["digest"]
    wanted = request.headers.get("Range")
    start, stop = span(wanted, len(data), at=f"blob {digest}")
    headers = {**_faults.HEADERS, "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    response = web.StreamResponse(status=200 if wanted is None else 206, headers=headers)
    response.content_length = stop - start
    response.content_type = BYTES
    connection = connection_of(request)
    connection.turn(Phase.ANSWER)
    await response.prepare(request)
    for begin in range(start, stop, SLICE):
        end = min(begin + SLICE, stop)
        await response.write(data[begin:end])
        hooks.progress(call.member, end - begin)
    await response.write_eof()
    return response


async def receive(request: web.BaseRequest, call: Call, sink: Sink | None, hooks: Hooks) -> web.Response:
    """Take in the bytes of a blob from an offset on."""
    size, offset = call.params["size"], call.params["offset"]
    if sink is None:
        return _taken(size, 200)
    try:
        if sink.offset != offset:
            return _elsewhere(sink.offset, offset, call)
        length = request.content_length or 0
        if offset + length > size:
            raise HttpError(f"expected at most {size - offset} more bytes, got {length}", at="Content-Length")
        await proceed(request)
        _buffers.widen(request.transport)
        came = await _receive(request, call, sink, hooks)
        if offset + came < size:
            return _taken(offset + came, 202)
        await _to_the_end(sink.finish())
        return _taken(size, 201)
    finally:
        _buffers.narrow(request.transport)
        await sink.close()


async def _receive(request: web.BaseRequest, call: Call, sink: Sink, hooks: Hooks) -> int:
    """Hand the bytes of a body on, a batch at a time; while a batch is written the next one arrives."""
    came = 0
    while True:
        pieces: list[bytes] = []
        try:
            is_more = await _collect(request, call, pieces, hooks)
        finally:
            # What has come is kept, also if the client is gone or the server ends.
            if pieces:
                came += sum(map(len, pieces))
                await _to_the_end(sink.append(pieces))
        if not is_more:
            return came


async def _collect(request: web.BaseRequest, call: Call, pieces: list[bytes], hooks: Hooks) -> bool:
    """Fill ``pieces`` with one batch; False if the body ends with it."""
    connection = connection_of(request)
    size = 0
    connection.turn(Phase.BODY)
    try:
        while size < BATCH:
            piece = await read(request)
            if not piece:
                return False
            pieces.append(piece)
            size += len(piece)
            hooks.progress(call.member, len(piece))
    finally:
        connection.turn(Phase.HANDLER)
    return True


async def _to_the_end(step: Coroutine[Any, Any, None]) -> None:
    """Let a step of a sink end whatever becomes of this request: a sink is not closed in the middle of one."""
    task = asyncio.get_running_loop().create_task(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def proceed(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send its body."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


def _taken(offset: int, status: int) -> web.Response:
    return web.Response(status=status, headers={**_faults.HEADERS, "Upload-Offset": str(offset)})


def _elsewhere(have: int, given: int, call: Call) -> web.Response:
    message = f"expected the upload to go on at byte {have}, got offset {given}"
    error = WrongOffset(message, at=f"blob {call.params['digest']}")
    return _faults.answer(error, {"Upload-Offset": str(have)})
