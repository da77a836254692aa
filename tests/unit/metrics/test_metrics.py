"""Names, help, units and labels of every metric, as promtool's lint wants them; pages and rules that speak of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from kinora.agent.metrics import EngineTime, Metrics
from kinora.cli.metrics_docs import BOOKS, definitions, renewed, shared, tables
from kinora.kube.metrics import ApiMetrics, Book, Definition, exemplar
from kinora_cluster import ROOT

PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
ALERTS = ROOT / "docs/monitoring/alerts.yaml"
DASHBOARD = ROOT / "docs/monitoring/dashboard.json"
ALL = [pytest.param(one, id=f"{process}-{one.name}") for process, told in definitions().items() for one in told]
KNOWN = {one.name: one for told in definitions().values() for one in told}

# promlint of client_golang (what `promtool check metrics` runs): units that are no base units, and short forms.
OTHER_UNITS = {
    "milliseconds": "seconds", "minutes": "seconds", "hours": "seconds", "days": "seconds", "weeks": "seconds",
    "kelvins": "kelvin", "fahrenheit": "celsius", "inches": "meters", "yards": "meters", "miles": "meters",
    "bits": "bytes", "kilobytes": "bytes", "megabytes": "bytes", "gigabytes": "bytes", "calories": "joules",
    "pounds": "grams", "ounces": "grams",
}  # fmt: skip
SHORT_UNITS = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
TYPES = {"gauge", "counter", "histogram", "summary", "untyped"}


@pytest.mark.parametrize("one", ALL)
def test_a_name_says_what_is_counted_in_which_unit_and_not_how(one: Definition) -> None:
    words = one.name.split("_")
    assert words[0] == "kinora"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", one.name), "no colons (recording rules have them), no camel case"
    assert (words[-1] == "total") == (one.kind == "counter")
    assert not set(words) & (TYPES | OTHER_UNITS.keys() | SHORT_UNITS)
    assert words[-1] not in {"bucket", "count", "sum"}
    if one.kind == "histogram":
        assert words[-1] == "seconds", "a base unit is the suffix"


@pytest.mark.parametrize("one", ALL)
def test_help_and_labels_are_there_and_clean(one: Definition) -> None:
    assert len(one.help) > 10
    assert "|" not in one.help, "it stands in a table"
    assert "\n" not in one.help
    assert len(set(one.labels)) == len(one.labels) <= 4
    for label in one.labels:
        assert re.fullmatch(r"[a-z][a-z_]*", label)
        assert label not in {"le", "quantile", "job", "instance", "name", "pod", "uid", "videojob", "modelserver"}


@pytest.mark.parametrize("one", [param for param in ALL if param.values[0].kind == "histogram"])  # type: ignore[attr-defined]
def test_buckets_rise_and_reach_as_far_as_the_thing_may(one: Definition) -> None:
    assert list(one.buckets) == sorted(set(one.buckets))
    assert 8 <= len(one.buckets) <= 20
    if "render" in one.name or "queue" in one.name or "total_seconds" in one.name:
        assert one.buckets[-1] >= 2 * 3600


@pytest.mark.parametrize("process", BOOKS)
def test_what_is_exposed_is_what_is_defined(process: str) -> None:
    book = BOOKS[process]()
    text = generate_latest(book.registry).decode()
    exposed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert exposed == {one.name: one.kind for one in book.definitions}
    assert "_created" not in text


def test_a_metric_of_two_processes_is_the_same_in_both() -> None:
    told = definitions()
    common = {one.name for one in shared(told)}
    assert {"kinora_build_info", "kinora_api_request_seconds", "kinora_watch_lag_seconds"} <= common
    names = [one.name for metrics in told.values() for one in metrics if one.name not in common]
    assert len(set(names)) == len(names)


# --- the page


def test_the_page_is_what_the_code_says() -> None:
    assert renewed(PAGE, tables(definitions())) == PAGE, "run: make generate"


def test_a_page_without_a_place_for_a_process_is_refused() -> None:
    with pytest.raises(ValueError, match="no section 'nobody'"):
        renewed(PAGE, {"nobody": "| |"})


# --- rules and dashboards speak only of what is there


def rules() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def panels() -> Iterator[tuple[str, str]]:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"][1:]:
        yield f"variable {variable['name']}", variable["query"]["query"]


def questions() -> Iterator[tuple[str, str]]:
    section = PAGE.partition("## Questions")[2]
    for question, cell in re.findall(r"^\| (.+\?) \| (.+) \|$", section, re.MULTILINE):
        for query in re.findall(r"`(.*?kinora_.*?)`", cell):  # what else is in a cell is no query
            yield f"question {question}", query


def examples() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for query in re.findall(r"query: (.*)", path.read_text(encoding="utf-8")):
            yield f"example {path.name}", query


QUERIES = [pytest.param(query, id=name) for told in (rules, panels, questions, examples) for name, query in told()]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_metrics_and_labels_that_exist(query: str) -> None:
    found = re.findall(r"(kinora_[a-z0-9_]+)(?:\{([^}]*)\})?", query)
    assert found
    labels: set[str] = {"le"} if "_bucket" in query else set()
    for name, selector in found:
        base = re.sub(r"_(bucket|count|sum)$", "", name) if name not in KNOWN else name
        assert base in KNOWN, f"{name} is no metric"
        assert base == name or KNOWN[base].kind == "histogram"
        labels |= set(KNOWN[base].labels)
        assert set(re.findall(r"(\w+)\s*(?:=|!)", selector)) <= set(KNOWN[base].labels)
    for named in re.findall(r"(?:by|on|ignoring|without) ?\(([^)]*)\)", query):
        assert {one.strip() for one in named.split(",")} <= labels


def test_every_alert_says_what_it_means() -> None:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        names = [rule["alert"] for rule in group["rules"]]
        assert len(set(names)) == len(names) > 8
        for rule in group["rules"]:
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in {"info", "warning", "critical"}


# --- parts


def test_a_duration_carries_the_job_that_took_it_where_the_format_allows() -> None:
    metrics = Metrics()
    uid = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
    metrics.stage_seconds.labels(stage="rendered").observe(42.0, exemplar(uid))
    families = text_string_to_metric_families(generate_openmetrics(metrics.registry).decode())
    found = [sample for family in families for sample in family.samples if sample.exemplar is not None]
    assert [(sample.labels, sample.exemplar.labels) for sample in found] == [
        ({"stage": "rendered", "le": "60.0"}, {"videojob_uid": uid})
    ]
    assert uid not in generate_latest(metrics.registry).decode()


def state_seconds(engine: EngineTime) -> dict[str, float]:
    return {state: seconds for (state,), seconds in engine.samples()}


def test_the_engines_time_adds_up_and_the_gap_between_two_prompts_is_told() -> None:
    now = [0.0]
    engine = EngineTime(lambda: now[0])
    now[0] = 10
    engine.ready(True)
    now[0] = 14
    assert engine.began("a") is None, "there was none before it"
    now[0] = 44
    engine.ready(False)  # it drains: what renders goes on
    engine.ended("a")
    engine.ended("a")
    now[0] = 45
    assert engine.began("b") == 1
    assert engine.began("c") is None, "the engine was not idle"
    now[0] = 50
    assert state_seconds(engine) == {"Busy": 35, "Idle": 4, "Unready": 11}


def object_of(version: str) -> dict[str, dict[str, str]]:
    return {"metadata": {"resourceVersion": version}}


def test_the_lag_of_a_watch_is_from_the_answer_to_the_event_of_the_same_write() -> None:
    book = Book("test")
    api = ApiMetrics(book)
    api.wrote("videojobs", object_of("7"), 100.0)
    api.shown("videojobs", object_of("6"), 100.1)  # somebody else's
    api.shown("videojobs", object_of("7"), 100.25)
    api.shown("videojobs", object_of("8"), 101.0)  # its event comes before its answer
    api.wrote("videojobs", object_of("8"), 101.1)
    for number in range(2000):  # a watch that is down: nothing may pile up
        api.wrote("videojobs", object_of(f"n{number}"), 102.0)
    assert len(api._answered) <= 512
    get = book.registry.get_sample_value
    assert get("kinora_watch_lag_seconds_count", {"resource": "videojobs"}) == 2
    assert get("kinora_watch_lag_seconds_sum", {"resource": "videojobs"}) == pytest.approx(0.25)
