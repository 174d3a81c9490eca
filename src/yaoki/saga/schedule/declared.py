"""`saga.schedule(...)`: a schedule that belongs to the saga, so that every program that runs the saga keeps it, `yk worker` too."""

from __future__ import annotations

from typing import Any


class Scheduled:
    """For a saga. Attributes: schedules: what was declared, by name, as the arguments of `App.schedule`."""

    schedules: dict[str, dict[str, Any]]

    def schedule(self, name: str, **how: Any) -> None:
        """Start a run at each instant, wherever this saga runs: the arguments of `App.schedule`, without the saga.

            report.schedule("nightly", cron="0 3 * * *", zone="Europe/Berlin", input=Report("all"))

        It is checked when an app is opened with the saga.
        """
        self.schedules[name] = how
