"""A plain program that forks with an app open: `python forking_program.py URL`. Prints what each process got, as JSON lines."""

from __future__ import annotations

import json
import os
import sys

import yaoki
from yaoki import Saga

echo = Saga("echo", input=int)


@echo.step(undo=None)
def say(n: int) -> int:
    return n


def tell(who: str, value: object) -> None:
    os.write(1, (json.dumps({"who": who, "got": value}) + "\n").encode())


def child(app: yaoki.app.SyncApp) -> None:
    try:
        tell("child", app.start(echo, 2).result(100))
        tell("child again", app.run(echo, "before").result(100))
    except yaoki.YaokiError as error:
        tell("child", {"error": type(error).__name__, "do": error.do})


def main(url: str) -> None:
    with yaoki.open(url, sagas=[echo]) as app:
        tell("parent", app.start(echo, 1, id="before").result(100))
        pid = os.fork()
        if not pid:
            child(app)
            app.close()
            os._exit(0)
        os.waitpid(pid, 0)
        tell("parent after", app.start(echo, 3).result(100))


if __name__ == "__main__":
    main(sys.argv[1])
