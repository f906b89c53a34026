"""A daemon that only its verbs know."""

from collections.abc import AsyncGenerator
from typing import Any

import trio

from helexa.control.protocol import Args
from helexa.control.server import Left, Verb
from helexa.errors import ConfigError, NotFound


class FakeDaemon:
    """Verbs that do what a test needs, and the events that it watches."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.ended = trio.Event()

    async def status(self, args: Args) -> AsyncGenerator[Any, None]:
        yield {"version": "0.1.0", "args": args.flag("watch")}

    async def count(self, args: Args) -> AsyncGenerator[Any, None]:
        for number in range(int(args.number("to", 3, 1_000_000))):
            yield number

    async def load(self, args: Args) -> AsyncGenerator[Any, None]:
        if args.text("model") == "ghost":
            raise NotFound("no such model: ghost")
        yield {"phase": "loading", "done": 1, "total": 2}
        yield {"message": f"{args.text('model')} is loaded"}

    async def reload(self, args: Args) -> AsyncGenerator[Any, None]:
        raise ConfigError(["one mistake", "another"])
        yield

    async def models(self, args: Args) -> AsyncGenerator[Any, None]:
        yield {"id": "demo", "status": "loaded"}

    async def drain(self, args: Args) -> AsyncGenerator[Any, None]:
        yield {"message": "finishing 1 request"}
        raise Left

    async def broken(self, args: Args) -> AsyncGenerator[Any, None]:
        raise ZeroDivisionError("a bug")
        yield

    async def wait(self, args: Args) -> AsyncGenerator[Any, None]:
        try:
            yield "begun"
            self.begun.set()
            await trio.sleep_forever()
        finally:
            self.ended.set()

    def verbs(self) -> dict[str, Verb]:
        reading = {"status": self.status, "count": self.count, "broken": self.broken}
        changing = {"load": self.load, "reload": self.reload}
        return {
            **{name: Verb(name, False, handle) for name, handle in reading.items()},
            **{name: Verb(name, True, handle) for name, handle in changing.items()},
            "wait": Verb("wait", False, self.wait),
        }
