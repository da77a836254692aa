"""The tables of docs/metrics.md from the code: `python -m kinora.cli.metrics_docs FILE [OUT]`. Text only.

Each process's metrics are defined in its own `metrics` module; the prose around the tables stays as it is written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from kinora.agent.metrics import Metrics as AgentMetrics
from kinora.controller.metrics import Metrics as OperatorMetrics
from kinora.controller.store import Store
from kinora.gateway.metrics import Metrics as GatewayMetrics
from kinora.gateway.webhooks.metrics import Metrics as WebhookMetrics
from kinora.kube.metrics import Book, Definition
from kinora.stager.metrics import Metrics as StagerMetrics


def _operator() -> Book:
    return OperatorMetrics(Store(lambda: 0.0, lambda _kind, _name: None), frozenset()).book


def _gateway() -> Book:
    book = GatewayMetrics().book
    WebhookMetrics(book)
    return book


#: Every process that has metrics; its tables stand between the marks of its name.
BOOKS: Mapping[str, Callable[[], Book]] = MappingProxyType(
    {
        "operator": _operator,
        "agent": lambda: AgentMetrics().book,
        "stager": lambda: StagerMetrics().book,
        "gateway": _gateway,
    }
)


def definitions() -> dict[str, list[Definition]]:
    """Process -> its metrics, in the order in which the code defines them."""
    return {name: list(make().definitions) for name, make in BOOKS.items()}


def shared(told: Mapping[str, Sequence[Definition]]) -> list[Definition]:
    """Those that every process has, by definition the same."""
    first, *others = told.values()
    return [one for one in first if all(one in other for other in others)]


def tables(told: Mapping[str, Sequence[Definition]]) -> dict[str, str]:
    """Section -> its table; `every` is what all processes have, `buckets` the bounds of each histogram."""
    common = shared(told)
    out = {"every": _table(common)}
    for process, metrics in told.items():
        out[process] = _table([one for one in metrics if one not in common])
    rows: dict[tuple[float, ...], list[str]] = {}
    for one in dict.fromkeys(one for metrics in told.values() for one in metrics):
        if one.buckets:
            rows.setdefault(one.buckets, []).append(f"`{one.name}`")
    bounds = (f"| {', '.join(f'{bound:g}' for bound in key)} | {', '.join(names)} |" for key, names in rows.items())
    out["buckets"] = "\n".join(("| upper bounds, in seconds | histograms |", "|---|---|", *bounds))
    return out


def _table(metrics: Sequence[Definition]) -> str:
    rows = (f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.help} |" for one in metrics)
    return "\n".join(("| metric | type | labels | tells |", "|---|---|---|---|", *rows))


def renewed(page: str, sections: Mapping[str, str]) -> str:
    """The page with each section's table between its marks. Raises ValueError where a section has no place."""
    for name, table in sections.items():
        begin, end = f"<!-- {name}: from the code, by make generate -->", f"<!-- {name}: end -->"
        found = re.search(f"{re.escape(begin)}\n.*?{re.escape(end)}", page, re.DOTALL)
        if found is None:
            raise ValueError(f"the page has no section {name!r}: lines {begin!r} and {end!r}")
        text = f"{begin}\n\n{table}\n\n{end}"
        page = page[: found.start()] + text + page[found.end() :]
    return page


if __name__ == "__main__":
    source = Path(sys.argv[1])
    Path(sys.argv[-1]).write_text(renewed(source.read_text(encoding="utf-8"), tables(definitions())), encoding="utf-8")
