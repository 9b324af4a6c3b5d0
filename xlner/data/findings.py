"""All that is wrong with a corpus: exact counts, and the first places of each code.

The memory that it takes does not grow with the number of problems.
"""

from collections import Counter

from xlner.data.problems import CODES, ERROR, CorpusProblem


class Findings:
    """Collects problems; its `add` is a `Report` that returns, so that readers go on."""

    def __init__(self, limit: int = 20) -> None:
        """Keep the first `limit` problems of each code."""
        self.limit = limit
        self.counts = Counter[str]()
        self.repairs = Counter[tuple[str, str]]()  # code and what reading on makes of it
        self.first: dict[str, list[CorpusProblem]] = {}

    def add(self, problem: CorpusProblem) -> None:
        """Count a problem."""
        self.counts[problem.code] += 1
        if problem.repair:
            # `read as B-LOC` would be a repair of its own for each tag.
            repair = "the tag is mended" if problem.repair.startswith("read as ") else problem.repair
            self.repairs[problem.code, repair] += 1
        kept = self.first.setdefault(problem.code, [])
        if len(kept) < self.limit:
            kept.append(problem)

    def note(self, code: str, place: str, message: str) -> None:
        """Count something that reading does not change."""
        self.add(CorpusProblem(code, place, message, ""))

    def forget(self, code: str) -> None:
        """Take back all problems of a code that turned out to be none."""
        del self.counts[code]
        self.first.pop(code, None)
        for key in [key for key in self.repairs if key[0] == code]:
            del self.repairs[key]

    def total(self, severity: str = ERROR) -> int:
        """How many errors, or warnings, there are."""
        return sum(number for code, number in self.counts.items() if CODES[code].severity == severity)
