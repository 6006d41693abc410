"""What is counted of schedules."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Tally:
    """What came of one schedule or many; of the records that are valid and live at the end, those lost and wrong."""

    schedules: int = 0
    executions: int = 0
    read: int = 0
    live: int = 0
    lost: int = 0
    wrong: int = 0
    left_over: int = 0
    doubled: int = 0
    losing_schedules: int = 0

    def add(self, other: Tally) -> None:
        """Counts `other` in."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
