"""Stands before everything else: who may ask, how often, how much, and how long it may take to arrive."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from quickstudy.serve.limits import Limits, Refused

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/docs", "/healthz", "/favicon.ico"})
"""What may be had without the token: nothing of it says anything about tasks or the learner."""
CLIENTS = 10_000
"""Clients whose rate is remembered."""
DRAINED = 64 * 2**20
"""Bytes of a body that is refused that are read and thrown away, so that whoever sends it reads the answer."""
HEADERS = (
    (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store"),
)  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def host_of(header: str) -> str:
    """The name in a Host header, without its port.

    >>> host_of("localhost:8000"), host_of("[::1]:80"), host_of("evil.example")
    ('localhost', '::1', 'evil.example')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


class Guard:
    """An ASGI application around another one.

    token: needed for all but what is OPEN; "" for none. local: only names of this machine are accepted in the Host
    header, for a page of another site may give its own name our address. seen: called with the verb, the path, the
    status and the seconds of every request.
    """

    def __init__(
        self, app: App, limits: Limits, token: str = "", local: bool = True,
        seen: Callable[[str, str, int, float], object] = lambda *request: None,
    ):  # fmt: skip
        self.app = app
        self.limits = limits
        self.token = hashlib.sha256(token.encode()).digest() if token else b""
        self.local = local
        self.seen = seen
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 499  # what is counted where the client is gone before the answer

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        try:
            try:
                self._check(scope)
                body = await self._body(scope, receive)
            except Refused as refused:
                await refuse(noted, refused, self._drain(receive) if _bodied(scope) and refused.status != 408 else None)
                return
            if body is not None:
                await self.app(scope, _replay(body, receive), noted)
        finally:
            self.seen(scope["method"], scope["path"], status, time.perf_counter() - begin)

    def _check(self, scope: Scope) -> None:
        headers = _headers(scope)
        if self.local and not is_loopback(host_of(headers.get(b"host", b"").decode("latin-1"))):
            raise Refused(400, "the Host header names another machine: use localhost or 127.0.0.1 in the address.")
        self._check_rate(str((scope.get("client") or ("",))[0]))
        if self.token and scope["path"] not in OPEN:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            # digests are compared, so that neither letters nor length show in the time
            same = hmac.compare_digest(hashlib.sha256(given.strip()).digest(), self.token)
            if kind.lower() != b"bearer" or not same:
                raise Refused(401, "the token is missing or wrong: send it as `Authorization: Bearer TOKEN`.")
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if scope["method"] in ("POST", "PATCH", "PUT") and kind != b"application/json":
            raise Refused(415, "the body is not said to be JSON: send the header Content-Type: application/json.")

    def _check_rate(self, client: str) -> None:
        rate = self.limits.rate
        if not rate:
            return
        now = time.monotonic()
        left, then = self._rates.pop(client, (max(rate, 1.0), now))
        left = min(max(rate, 1.0), left + (now - then) * rate)
        self._rates[client] = (left - 1, now) if left >= 1 else (left, now)
        if len(self._rates) > CLIENTS:
            self._rates.popitem(last=False)
        if left < 1:
            raise Refused(429, f"there were more than {rate:g} requests a second: wait a moment and try again.")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if the client is gone. Raises Refused if it is too large or too slow."""
        most = self.limits.body
        said = _headers(scope).get(b"content-length", b"")
        if said.isdigit() and int(said[:20]) > most:
            raise self._too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    size += len(part)
                    if size > most:
                        raise self._too_large()
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(
                408, f"the request did not arrive within {self.limits.seconds:g} seconds: send less at once."
            ) from None

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self.limits.body} bytes: send fewer rows at once.")

    async def _drain(self, receive: Receive) -> None:
        """Read and forget what still comes of a body, within reason."""
        size = 0
        try:
            async with asyncio.timeout(min(self.limits.seconds, 5.0)):
                while size < DRAINED:
                    message = await receive()
                    size += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return
        except TimeoutError:
            return


async def refuse(send: Send, refused: Refused, after: Awaitable[None] | None = None) -> None:
    """Answer with an error; `after` is awaited between the answer and its end, which closes the connection."""
    body = json.dumps({"error": refused.sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if refused.status == 401 else []
    headers += [(b"retry-after", b"1")] if refused.status in (429, 503) else []
    headers += [(b"connection", b"close")] if after is not None or refused.status == 408 else []
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": after is not None})
    if after is not None:
        await after
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _replay(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and then whatever comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return next_message


def _bodied(scope: Scope) -> bool:
    """Whether a body comes, which was not read."""
    headers = _headers(scope)
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])
