"""`python -m yaoki` is `yk`."""

from yaoki.cli import main

main()
