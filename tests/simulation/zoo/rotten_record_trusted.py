"""A balance is read back from a file, and whatever is read is taken for true."""

import zlib

from yaoki.explore import FakeFile, Scenario, World

BREAKS = "balance_is_true"


def program(*, fixed: bool) -> Scenario:
    book, said = FakeFile("book"), {}

    def written(amount: int) -> bytes:
        line = f"{amount:08d}".encode()
        return line + b" %08x" % zlib.crc32(line) if fixed else line

    def main() -> int:
        said.clear()
        if not book.read():
            book.replace(written(1200))
        data = book.read()
        line, _, check = data.partition(b" ")
        if fixed and int(check or b"0", 16) != zlib.crc32(line):
            raise ValueError("the book is damaged: restore it from the backup")
        said["balance"] = int(line)
        return said["balance"]

    def balance_is_true(world: World) -> str:
        return "" if said.get("balance", 1200) == 1200 else f"1200 was written, and the balance is said to be {said['balance']}"

    return Scenario(main, invariants=[balance_is_true])
