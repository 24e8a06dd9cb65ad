"""Figures → what is shown and what is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.trial import Cost, Detail

OURS = "batch run"
DLT = "dlt, unsorted"
# Above this share of the machine's work done for others, figures are said to be taken under load.
_NOISE = 0.1


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(*(round(value, 3) for value in (min(values), median(values), max(values))))

    def __str__(self) -> str:
        return f"{self.minimum:.2f}  {self.median:.2f}  {self.maximum:.2f}"


@dataclass(frozen=True)
class Contest:
    """One table's rounds: each contender once in each, in the same order."""

    table: str
    rounds: Sequence[Mapping[str, Cost]]

    @property
    def contenders(self) -> Sequence[str]:
        return list(self.rounds[0])

    def seconds(self, contender: str) -> Spread:
        return Spread.of([each[contender].seconds for each in self.rounds])

    def cpu(self, contender: str) -> Spread:
        """CPU seconds of the contender and of the store that worked for it."""
        return Spread.of([_cpu(each[contender]) for each in self.rounds])

    def peak(self, contender: str) -> float:
        return round(max(each[contender].peak_mib for each in self.rounds))

    def ratio(self, other: str) -> Spread:
        """Our seconds by theirs, pair by pair."""
        return Spread.of([each[OURS].seconds / each[other].seconds for each in self.rounds])

    def cpu_ratio(self, other: str) -> Spread:
        return Spread.of([_cpu(each[OURS]) / _cpu(each[other]) for each in self.rounds])

    def noise(self) -> float:
        """The share of all CPU seconds that went to what has nothing to do with this."""
        costs = [cost for each in self.rounds for cost in each.values()]
        others = sum(cost.others_cpu for cost in costs)
        return round(others / (others + sum(_cpu(cost) for cost in costs)), 3)

    def stages(self) -> Mapping[str, float]:
        """The median seconds of our stages."""
        told = [each[OURS].detail for each in self.rounds]
        return {stage: round(median(numbers(one)[stage] for one in told), 3) for stage in told[0]}

    def kept(self) -> Mapping[str, object]:
        """What goes into the file of results."""
        theirs = [name for name in self.contenders if name != OURS]
        return {
            "contenders": {
                name: {
                    "seconds": vars(self.seconds(name)),
                    "cpu_seconds": vars(self.cpu(name)),
                    "peak_mib": self.peak(name),
                }
                for name in self.contenders
            },
            "ratios": {
                name: {"seconds": vars(self.ratio(name)), "cpu": vars(self.cpu_ratio(name))}
                for name in theirs
            },
            "stages": self.stages(),
            "share_of_others": self.noise(),
        }


def _cpu(cost: Cost) -> float:
    return cost.cpu + cost.store_cpu


def numbers(detail: Detail) -> Mapping[str, float]:
    """The single figures among what a job told."""
    return {
        name: round(value, 3) for name, value in detail.items() if isinstance(value, float | int)
    }


def by_name(detail: Detail) -> Mapping[str, Mapping[str, float]]:
    """The groups of figures among what a job told."""
    return {name: numbers(value) for name, value in detail.items() if isinstance(value, Mapping)}


def show_contest(console: Console, contest: Contest) -> None:
    table = Table(title=f"{contest.table}: {len(contest.rounds)} rounds (min, median, max)")
    for column in ("", "seconds", "CPU s", "peak MiB", "ratio", "CPU ratio"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name in contest.contenders:
        ours = name == OURS
        table.add_row(
            name,
            str(contest.seconds(name)),
            str(contest.cpu(name)),
            f"{contest.peak(name):.0f}",
            "" if ours else str(contest.ratio(name)),
            "" if ours else str(contest.cpu_ratio(name)),
        )
    console.print(table)
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in contest.stages().items())
    console.print(f"stages of {OURS}, seconds: {stages}")
    if (noise := contest.noise()) > _NOISE:
        console.print(f"[yellow]taken under load: {noise:.0%} of all CPU time went to others")


def show_figures(console: Console, title: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    """A row for each name, a column for each figure."""
    table = Table(title=title)
    table.add_column("")
    for column in next(iter(figures.values())):
        table.add_column(column, justify="right")
    for name, found in figures.items():
        table.add_row(
            name, *(f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in found.values())
        )
    console.print(table)


def small_figures(cost: Cost) -> Mapping[str, float]:
    """The first batch pays for imports and tables; the median of the others is the fixed cost."""
    first, *further = numbers(cost.detail).values()
    least, middle, most = vars(Spread.of(further)).values()
    return {"first": first, "further, minimum": least, "median": middle, "maximum": most}


def show_speeds(console: Console, speeds: Mapping[str, Spread]) -> None:
    table = Table(title="the parts alone, MB/s (min, median, max)")
    table.add_column("")
    table.add_column("", justify="right")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed.minimum:,.0f}  {speed.median:,.0f}  {speed.maximum:,.0f}")
    console.print(table)


def speed_of(costs: Sequence[Cost]) -> Spread:
    return Spread.of([numbers(cost.detail)["mb"] / cost.seconds for cost in costs])


def show_steps(console: Console, cost: Cost) -> None:
    wall, cpu = cost.detail["wall"], cost.detail["cpu"]
    assert isinstance(wall, Mapping)
    assert isinstance(cpu, Mapping)
    table = Table(title=f"steps within the load of {cost.seconds:.2f} s, all threads together")
    for column in ("", "seconds", "CPU s of its thread"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for step, seconds in wall.items():
        table.add_row(step, f"{seconds:.2f}", f"{cpu[step]:.2f}")
    console.print(table)
