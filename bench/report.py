"""Tables and a plot of what was measured."""

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from load import Run

Results = dict[str, dict[str, list[Run]]]
BAR, GAP, LEFT, WIDE = 18, 8, 230, 900


def median_of(rounds: list[Run]) -> dict[str, float]:
    """Return the median of each figure."""
    return {
        key: statistics.median(getattr(one, key) for one in rounds) for key in asdict(rounds[0])
    }


def loads_table(results: Results) -> str:
    """Return the medians as a Markdown table per load."""
    lines: list[str] = []
    for load, targets in results.items():
        medians = {name: median_of(rounds) for name, rounds in targets.items()}
        nginx, envoy = medians.get("nginx"), medians.get("Envoy MCP router")
        lines += [
            f"**{load}**",
            "",
            "| system | x nginx | x Envoy's router | CPU µs a call | p50 ms | p95 ms | p99 ms "
            "| calls/s (least - most) | wrong |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for name, seen in medians.items():
            rates = [one.calls_per_second for one in targets[name]]
            ratios = [
                f"{seen['calls_per_second'] / one['calls_per_second']:.3f}" if one else ""
                for one in (nginx, envoy)
            ]
            lines.append(
                f"| {name} | {ratios[0]} | {ratios[1]} | {seen['cpu_us']:,.0f} | "
                f"{seen['p50']:.2f} | {seen['p95']:.2f} | {seen['p99']:.2f} | "
                f"{seen['calls_per_second']:,.0f} ({min(rates):,.0f} - {max(rates):,.0f}) | "
                f"{sum(one.wrong for one in targets[name])} |"
            )
        lines.append("")
    return "\n".join(lines)


def table(title: str, columns: list[str], rows: list[list[Any]]) -> str:
    """Return one Markdown table under a title."""
    lines = [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*lines, ""])


def plot(results: Results) -> str:
    """Return an SVG: per load a bar for each system's calls a second against nginx."""
    parts: list[str] = []
    top = 24
    for load, targets in results.items():
        medians = {name: median_of(rounds)["calls_per_second"] for name, rounds in targets.items()}
        against = medians.get("nginx") or max(medians.values())
        widest = max(medians.values()) / against
        parts.append(f'<text x="8" y="{top}" class="title">{load}</text>')
        top += 10
        for name, rate in sorted(medians.items(), key=lambda one: -one[1]):
            length = max(1.0, rate / against / widest * (WIDE - LEFT - 90))
            kind = "ours" if name.startswith("gateway") else "other"
            parts.append(
                f'<text x="{LEFT - 8}" y="{top + 13}" class="name">{name}</text>'
                f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" class="{kind}"/>'
                f'<text x="{LEFT + length + 6:.1f}" y="{top + 13}">{rate / against:.3f}</text>'
            )
            top += BAR + GAP
        top += 30
    style = (
        "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.name{text-anchor:end}"
        ".ours{fill:#1f6feb}.other{fill:#b6bec8}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {top}" role="img">'
        f"<title>Calls a second, nginx = 1</title><style>{style}</style>"
        f'<rect width="{WIDE}" height="{top}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the marks of a Markdown page."""
    begin, end = "<!-- measured -->\n", "<!-- end of measured -->"
    old = page.read_text()
    page.write_text(f"{old.split(begin)[0]}{begin}\n{text}\n{end}{old.split(end)[1]}")
