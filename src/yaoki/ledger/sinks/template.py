"""Names of versions: `logs/{key}-{version}.log`, written and read back.

`{key}` and `{version}` must both be there, once. A format for the version is allowed: `{version:06d}`. What does not come
back as it was written (`A-007.log` without a format) is foreign, so that one version cannot hide under two names.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from yaoki.errors import ConfigError
from yaoki.ledger.records import MAX_VERSION, Naming

FIELD = re.compile(r"\{(\w+)(?::0?(\d+)d?)?\}")
SAFE = " !$&'()+,-.=@_~"


class Template:
    """A pattern of names.

    Args:
        text: with `{key}` and `{version}`.
        key: another word for the key in `text`, such as the name of its attribute.
        quoted: are characters that cannot be in a file name written as %XX?
    """

    def __init__(self, text: str, *, key: str = "key", version: str = "version", quoted: bool = False) -> None:
        self.text = text
        self._quoted = quoted
        self._width = 0
        aliases = {"key": "key", "version": "version", key: "key", version: "version"}
        fields = [(match, aliases.get(match[1], "")) for match in FIELD.finditer(text)]
        if sorted(field for _, field in fields) != ["key", "version"]:
            raise ConfigError(f"the template {text!r} must contain {{key}} and {{version}}, each once",
                              do="for example logs/{key}-{version}.log", template=text)
        pattern, at = "", 0
        self._parts: list[str] = []
        for match, field in fields:
            self._parts += [text[at:match.start()], field]
            pattern += re.escape(text[at:match.start()])
            pattern += r"(?P<key>.+)" if field == "key" else r"(?P<version>\d{1,12})"
            self._width = int(match[2] or 0) if field == "version" else self._width
            at = match.end()
        self._parts.append(text[at:])
        self._pattern = re.compile(pattern + re.escape(text[at:]), re.DOTALL)
        self.prefix = self._parts[0]

    def name(self, key: str, version: int) -> str:
        """The name of a version."""
        values = {"key": quote(key, safe=SAFE) if self._quoted else key, "version": f"{version:0{self._width}d}"}
        return "".join(values.get(part, part) if at % 2 else part for at, part in enumerate(self._parts))

    def parse(self, name: str) -> Naming | None:
        """(key, version) of a name, or None if it is not one of ours."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        text = match["version"]
        version = int(text)
        if text != f"{version:0{self._width}d}" or version > MAX_VERSION:
            return None
        return (unquote(match["key"]) if self._quoted else match["key"]), version
