"""HTTP as uvicorn speaks it, with refusals that are JSON, a limit on connections, and no waiting for slow heads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from quickstudy.serve.limits import Limits

LINGER = 1.0
"""Seconds for which what comes after a refusal is thrown away."""


def protocol_for(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol for uvicorn's `http` option."""

    class Protocol(H11Protocol):
        """One connection."""

        def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None):
            super().__init__(config, server_state, app_state, _loop)
            self.slow: asyncio.TimerHandle | None = None
            self.refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self.refuse(503, f"{limits.connections} connections are open, which is the most: try again later.")
                return
            self.slow = self.loop.call_later(limits.seconds, self.too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self.calm()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.refused or self.transport.is_closing():
                return
            if self.slow is None and self.cycle is not None and self.cycle.response_complete:
                self.slow = self.loop.call_later(limits.seconds, self.too_slow)  # the head of the next request
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self.calm()  # a head has come whole: what follows is timed by the guard

        def calm(self) -> None:
            """The head of a request is there."""
            if self.slow is not None:
                self.slow.cancel()
                self.slow = None

        def too_slow(self) -> None:
            """The head of a request did not come in time."""
            self.slow = None
            self.refuse(408, f"the request did not arrive within {limits.seconds:g} seconds: send it at once.")

        def send_400_response(self, msg: str) -> None:
            self.refuse(400, "this is no HTTP request: see /docs for what is understood.")

        def refuse(self, status: int, sentence: str) -> None:
            """Answer without a request, and close."""
            if self.refused or self.transport.is_closing():
                return
            self.refused = True
            body = json.dumps({"error": sentence}).encode()
            head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.ERROR):
                self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
            if self.transport.can_write_eof():  # what still comes is thrown away, else the answer might not be read
                self.transport.write_eof()
                self.flow.resume_reading()
            self.loop.call_later(LINGER, self.transport.close)

    return Protocol
