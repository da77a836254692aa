"""What the metrics of every process of ours stand on: a registry that knows its definitions, buckets, API and lag.

A definition is all that docs/metrics.md says of a metric, so that the page is made from the code. Names are as a query
has them (counters with ``_total``). Label values are bounded, always: results, verbs, names of catalogue models, of
namespaces and of pools; never of a job or a pod. What led to a number is an exemplar, which OpenMetrics carries.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kinora import __version__

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # one more series for each, which no query here asks for

Kind = Literal["counter", "gauge", "histogram"]
Sample = tuple[tuple[str, ...], float]  # label values, in the order of the definition; the number

WAITS: Final = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400)
"Seconds that jobs wait, or take in all: to a day."
RENDERS: Final = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 14400)
"Seconds of a render: to four hours."
STAGES: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
"Seconds of a part of an attempt: from a cached input to a render of hours."
STARTS: Final = (1, 2, 5, 10, 20, 30, 60, 90, 120, 180, 300, 600, 900, 1800, 3600)
"Seconds until a pod serves: an image and weights of tens of GB are on the way."
REQUESTS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"Seconds of a request, or of a decision."


@dataclass(frozen=True)
class Definition:
    """One metric as it is told to people. ``buckets`` are upper bounds, of histograms only."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


class Book:
    """The metrics of one process. ``component``: its name in kinora_build_info."""

    def __init__(self, component: str) -> None:
        self.registry = CollectorRegistry()
        self.definitions: list[Definition] = []
        info = self.gauge(
            "kinora_build_info", "1, with component, version and Python's", ["component", "version", "python"]
        )
        info.labels(component, __version__, platform.python_version()).set(1)

    def counter(self, name: str, tells: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; ``name`` ends in ``_total``."""
        self._define(name, "counter", tells, labels)
        return Counter(name, tells, labels, registry=self.registry)

    def gauge(self, name: str, tells: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge that is set."""
        self._define(name, "gauge", tells, labels)
        return Gauge(name, tells, labels, registry=self.registry)

    def histogram(self, name: str, tells: str, labels: Sequence[str] = (), *, buckets: tuple[float, ...]) -> Histogram:
        """A histogram."""
        self._define(name, "histogram", tells, labels, buckets)
        return Histogram(name, tells, labels, buckets=buckets, registry=self.registry)

    def computed(
        self,
        name: str,
        kind: Literal["counter", "gauge"],
        tells: str,
        labels: Sequence[str] = (),
        *,
        samples: Callable[[], Iterable[Sample]],
    ) -> None:
        """A metric whose samples are computed when it is scraped."""
        definition = self._define(name, kind, tells, labels)
        self.registry.register(_Computed(definition, samples))

    def _define(
        self, name: str, kind: Kind, tells: str, labels: Sequence[str], buckets: tuple[float, ...] = ()
    ) -> Definition:
        definition = Definition(name, kind, tells, tuple(labels), buckets)
        self.definitions.append(definition)
        return definition


class _Computed(Collector):
    def __init__(self, definition: Definition, samples: Callable[[], Iterable[Sample]]) -> None:
        self._definition = definition
        self._samples = samples

    def describe(self) -> Iterator[Metric]:
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for values, number in self._samples():
            family.add_metric(values, number)
        yield family

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        told = self._definition
        make = CounterMetricFamily if told.kind == "counter" else GaugeMetricFamily
        return make(told.name, told.help, labels=told.labels)


def exemplar(uid: str) -> dict[str, str]:
    """What a duration is traced back by: the UID of the VideoJob."""
    return {"videojob_uid": uid}


class ApiMetrics:
    """What each process that speaks to the API server tells of it: its requests, and how far its watches are behind."""

    def __init__(self, book: Book) -> None:
        self._seconds = book.histogram(
            "kinora_api_request_seconds",
            "Requests to the API server; status 0: no answer",
            ["verb", "resource", "status"],
            buckets=REQUESTS,
        )
        self._lag = book.histogram(
            "kinora_watch_lag_seconds",
            "From the answer to a write of this process (of a status; of a gateway: of a VideoJob) until its watch "
            "showed it; 0 where the watch was first",
            ["resource"],
            buckets=REQUESTS,
        )
        self._answered: dict[tuple[str, str], float] = {}  # (resource, resourceVersion) -> when the answer came
        self._shown: dict[tuple[str, str], None] = {}  # what the watch showed lately: the answer may come after it

    def request(self, verb: str, plural: str, status: int, seconds: float) -> None:
        """One request (a `kube.client.Observer`)."""
        self._seconds.labels(verb, plural, str(status)).observe(seconds)

    def wrote(self, plural: str, obj: Mapping[str, Any], now: float) -> None:
        """The answer to a write of this process came at ``now`` (any monotonic clock)."""
        mark = plural, str(obj["metadata"]["resourceVersion"])
        if mark in self._shown:
            self._lag.labels(plural).observe(0.0)
        else:
            _remember(self._answered, mark, now)

    def shown(self, plural: str, obj: Mapping[str, Any], now: float) -> None:
        """A watch showed an object at ``now``."""
        mark = plural, str(obj["metadata"].get("resourceVersion"))
        answered = self._answered.pop(mark, None)
        if answered is not None:
            self._lag.labels(plural).observe(max(0.0, now - answered))
        else:
            _remember(self._shown, mark, None)


def _remember(marks: dict[tuple[str, str], Any], mark: tuple[str, str], value: Any) -> None:
    marks[mark] = value
    if len(marks) > 512:  # what never comes (a gap in the watch) must not stay
        del marks[next(iter(marks))]
