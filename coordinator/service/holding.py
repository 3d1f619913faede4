"""Questions for work that are held: their answers end when it is worth asking again.

Who holds on is known to SuperLink, which has answered the question before; one question of a node
is held at a time, so that there are never more than enrolled nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from edgetrain.client.fleet.hold import APPLIED, preference

__all__ = ["HeldResponse", "Holds"]


class Holds:
    """Nodes that wait. `wakes` counts how often any were woken."""

    def __init__(self) -> None:
        self.wakes = 0
        self._woken: dict[int, int] = {}
        self._waiting: dict[int, asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wake(self, nodes: Iterable[int]) -> None:
        """End the waiting of these nodes, also of those whose questions are on their way."""
        self.wakes += 1
        for node in nodes:
            self._woken[node] = self.wakes
            self._end(node)

    def wake_all(self) -> None:
        """End all waiting."""
        for node in self._waiting:
            self._end(node)

    async def until_woken(self, node: int, asked: int, seconds: float) -> None:
        """Return when the node is woken, asks again, or has waited for so long.

        `asked` is what `wakes` was before its question was passed on: whoever was woken since then
        does not wait.
        """
        if self._woken.get(node, 0) > asked:
            return
        self._end(node)
        woken = self._waiting[node] = asyncio.Event()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await woken.wait()
        finally:
            if self._waiting.get(node) is woken:
                del self._waiting[node]

    def _end(self, node: int) -> None:
        if waiting := self._waiting.get(node):
            waiting.set()


class HeldResponse(StreamingResponse):
    """An answer without content whose head is sent at once, and whose end when `waiting` is over.

    Whether its reader is still there shows when it ends; until then nobody looks.
    """

    def __init__(
        self, waiting: Awaitable[None], seconds: float, headers: Mapping[str, str]
    ) -> None:
        async def content() -> AsyncIterator[bytes]:
            await waiting
            yield b""

        # nginx would keep the head back as well.
        held = {APPLIED: preference(seconds), "x-accel-buffering": "no"}
        super().__init__(content(), headers={**headers, **held})

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send the answer; see StreamingResponse."""
        await self.stream_response(send)
