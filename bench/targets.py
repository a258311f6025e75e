"""What the gateway has to reach, and whether a run reached it."""

from dataclasses import dataclass

from report import Results, median_of, table

CALL, MANY, LIST, BIG, READ = "call", "many", "list", "big", "read"
UVICORN, DAPHNE = "gateway on uvicorn", "gateway on daphne"
ENVOY = "Envoy MCP router"


@dataclass(frozen=True)
class Reached:
    """One target with what was measured; None where the run did not measure it."""

    target: str
    wanted: str
    measured: float | None
    unit: str
    reached: bool

    def row(self) -> list[str]:
        """Return the row of the table."""
        if self.measured is None:
            return [self.target, self.wanted, "not measured", ""]
        return [self.target, self.wanted, f"{self.measured:,.2f}{self.unit}".replace(".00", ""),
                "yes" if self.reached else "**no**"]  # fmt: skip


class Figures:
    """Looks up medians by load and system."""

    def __init__(self, results: Results, loads: dict[str, str]) -> None:
        self._medians = {
            key: {name: median_of(rounds) for name, rounds in results.get(load, {}).items()}
            for key, load in loads.items()
        }

    def get(self, load: str, system: str, what: str) -> float | None:
        """Return a figure, None if it was not measured."""
        return self._medians.get(load, {}).get(system, {}).get(what)

    def ratio(
        self, load: str, system: str, to: str, what: str = "calls_per_second"
    ) -> float | None:
        """Return how a system compares with another under the same load."""
        one, other = self.get(load, system, what), self.get(load, to, what)
        return one / other if one is not None and other else None


def at_least(target: str, least: float, measured: float | None) -> Reached:
    """A ratio that has to be reached."""
    return Reached(target, f"≥ {least:g}", measured, "", (measured or 0) >= least)


def at_most(target: str, most: float, measured: float | None, unit: str) -> Reached:
    """A cost that may not be passed."""
    return Reached(
        target, f"≤ {most:g}{unit}", measured, unit, measured is not None and measured <= most
    )


def within(target: str, share: float, ratio: float | None) -> Reached:
    """Two figures that may differ only so much, whichever is the larger."""
    low, high = 1 - share, 1 + share
    reached = ratio is not None and low <= ratio <= high
    return Reached(target, f"{low:g} - {high:g}", ratio, "", reached)


def targets_of(results: Results, loads: dict[str, str]) -> list[Reached]:
    """Compare the loads of a run with what is wanted of them."""
    seen = Figures(results, loads)
    one = seen.get(CALL, UVICORN, "cpu_us")
    call = "tools/call, uvicorn"
    return [
        at_most(f"{call}: CPU", 200, one, " µs"),
        at_most(f"{call}: CPU (aim)", 120, one, " µs"),
        at_least(f"{call}: x nginx", 0.20, seen.ratio(CALL, UVICORN, "nginx")),
        at_least(f"{call}: x nginx (aim)", 0.25, seen.ratio(CALL, UVICORN, "nginx")),
        at_least(f"{call}: x Envoy's router (aim)", 1.0, seen.ratio(CALL, UVICORN, ENVOY)),
        at_most("tools/call, Daphne: CPU", 550, seen.get(CALL, DAPHNE, "cpu_us"), " µs"),
        at_least("tools/call, Daphne: x nginx", 0.06, seen.ratio(CALL, DAPHNE, "nginx")),
        within(
            "five upstreams against one, uvicorn: CPU",
            0.15,
            _across(seen, UVICORN),
        ),
        within("five upstreams against one, Daphne: CPU", 0.15, _across(seen, DAPHNE)),
        at_least("tools/list of 100: x Envoy's router", 2, seen.ratio(LIST, UVICORN, ENVOY)),
        at_least("tools/list of 100: x nginx, same bytes", 0.30,
                 seen.ratio(LIST, UVICORN, "nginx")),
        at_least("64 KiB result: x nginx", 0.5, seen.ratio(BIG, UVICORN, "nginx")),
        at_least("64 KiB result: x nginx (aim)", 0.7, seen.ratio(BIG, UVICORN, "nginx")),
        at_least("64 KiB resource: x nginx", 0.5, seen.ratio(READ, UVICORN, "nginx")),
        at_least("64 KiB resource: x nginx (aim)", 0.7, seen.ratio(READ, UVICORN, "nginx")),
    ]  # fmt: skip


def _across(seen: Figures, system: str) -> float | None:
    one, many = seen.get(CALL, system, "cpu_us"), seen.get(MANY, system, "cpu_us")
    return many / one if one and many else None


def targets_table(reached: list[Reached]) -> str:
    """Return the table of targets."""
    columns = ["target", "wanted", "measured", "reached"]
    return table("Targets", columns, [one.row() for one in reached])
