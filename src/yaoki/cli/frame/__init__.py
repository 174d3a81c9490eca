"""What all nouns share: how words become a command (`root`), what it prints (`output`) and how it ends (`exits`)."""

from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.output import Output, output

__all__ = ["Exit", "Output", "output"]
