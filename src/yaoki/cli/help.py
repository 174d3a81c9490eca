"""Explain an error by its code: what happened, why, and what to do."""

from __future__ import annotations

import click

from yaoki.cli.frame import Output, output
from yaoki.text import did_you_mean


@click.command(epilog="\b\nExamples:\n  yk help YK-3001\n  yk help 3001\n  yk help             lists all codes")
@click.argument("code", required=False)
def command(code: str | None) -> None:
    """Explain an error by its code: what happened, why, and what to do. Without a code, list them all."""
    from yaoki.cli.frame.catalogue import by_code, page

    out = output()
    kinds = by_code()
    if code is None:
        for each, kind in kinds.items():
            out.emit({"code": each, "type": kind.__name__, "why": kind.why})
        out.table(("code", "error", "what happened"), [(each, kind.__name__, _summary(kind)) for each, kind in kinds.items()])
        return
    known = _code_of(code, list(kinds))
    out.emit({"code": known, "type": kinds[known].__name__, "why": kinds[known].why, "page": page(known)})
    _print(out, page(known))


def _code_of(word: str, known: list[str]) -> str:
    from yaoki.errors import UsageError

    code = word.upper() if word.upper().startswith("YK-") else f"YK-{word}"
    if code in known:
        return code
    # `yk help runs` is asked for as often as `yk runs --help`.
    from yaoki.cli.frame.root import summaries

    if word in summaries():
        raise UsageError(f"{word!r} is a command, not a code", do=f"yk {word} --help")
    raise UsageError(f"there is no error code {word!r}{did_you_mean(code, known)}", do="yk help  lists all codes")


def _summary(kind: type[Exception]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _print(out: Output, text: str) -> None:
    """Markdown for a terminal: headings stand out, and their marks are gone."""
    for line in text.rstrip("\n").splitlines():
        if line.startswith("#"):
            out.say(click.style(line.lstrip("# "), bold=True))
        else:
            out.say(line.replace("`", ""))
