"""The Dockerfiles keep to their pins, and to what pods demand of an image.

The instructions are read by the small parser below: the linters that are to be
had are programs of other languages, and none of them knows these rules.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
KNOWN = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD", "RUN",
    "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


class Instruction(NamedTuple):
    word: str
    rest: str


def parse(text: str) -> list[Instruction]:
    """Instructions with their continued lines joined and comments dropped."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        assert word.upper() in KNOWN, f"unknown instruction in: {line}"
        found.append(Instruction(word.upper(), rest.strip()))
    return found


def arguments(instructions: list[Instruction]) -> dict[str, str]:
    pairs = [item.rest.partition("=") for item in instructions if item.word == "ARG"]
    return {name: value for name, _, value in pairs}


def resolve(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), text)


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
def instructions(request):
    return parse(request.param.read_text())


def test_there_are_three() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["comfyui", "kinora", "standin"]


def test_bases_are_arguments_with_a_fixed_version(instructions) -> None:
    values = arguments(instructions)
    stages = set()
    for item in (item for item in instructions if item.word == "FROM"):
        name, _, stage = item.rest.partition(" AS ")
        if name not in stages:
            assert name.startswith("${"), f"FROM {name}: make the base a build argument, so that a mirror can be named"
            image = resolve(name, values)
            tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
            assert tag, f"{image} has no tag: name a version"
            assert tag != "latest", f"{image}: latest is another image tomorrow, name a version"
        stages.add(stage)


def test_runs_as_a_numbered_user_that_is_not_root(instructions) -> None:
    last = max(index for index, item in enumerate(instructions) if item.word == "FROM")
    users = [item.rest for item in instructions[last:] if item.word == "USER"]
    assert users, "the final stage names no USER"
    # A kubelet cannot tell that a user's name is not root's (runAsNonRoot).
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), f"USER {users[-1]}: give uid:gid as numbers above 0"


def test_every_source_is_fetched_by_a_full_commit(instructions) -> None:
    values = arguments(instructions)
    for item in (item for item in instructions if item.word == "RUN"):
        assert "git clone" not in item.rest, "git clone takes what a branch is today: fetch one commit"
        for target in re.findall(r"fetch (?:-\S+ |\d+ )*(\S+) (\S+)", item.rest):
            commit = resolve(target[1].strip('"'), values)
            assert re.fullmatch(r"[0-9a-f]{40}", commit), f"{target[0]} at {commit}: pin it by its 40-digit commit"


def test_nothing_is_added_from_an_address_or_piped_into_a_shell(instructions) -> None:
    for item in instructions:
        if item.word == "ADD":
            assert "://" not in item.rest or "--checksum=" in item.rest, f"ADD {item.rest}: give its --checksum"
        if item.word == "RUN":
            assert not re.search(r"(curl|wget)[^&;]*\|\s*(ba)?sh", item.rest), "what a server sends must not be run"
            if "apt-get install" in item.rest:
                assert "--no-install-recommends" in item.rest
                assert "rm -rf /var/lib/apt/lists" in item.rest


def test_commands_are_lists(instructions) -> None:
    for item in instructions:
        if item.word in ("CMD", "ENTRYPOINT"):
            assert item.rest.startswith("["), f"{item.word} {item.rest}: a shell would not pass on SIGTERM"


def test_no_package_index_is_named() -> None:
    for path in DOCKERFILES:
        assert not re.search(r"--(extra-)?index-url[ =]h", path.read_text()), (
            f"{path}: the index is the builder's choice"
        )


def test_the_lock_of_the_build_tools_agrees_with_the_lock_of_the_developers() -> None:
    pattern = re.compile(r"^([a-z0-9.-]+==\S+)((?: \\\n +--hash=\S+)+)", re.MULTILINE)
    dev = dict(pattern.findall((ROOT / "requirements" / "dev.lock").read_text()))
    build = dict(pattern.findall((ROOT / "images" / "kinora" / "build.lock").read_text()))
    assert any(pin.startswith("hatchling==") for pin in build)
    for pin, hashes in build.items():
        assert dev.get(pin) == hashes, f"{pin} in images/kinora/build.lock differs from requirements/dev.lock: copy it"


@pytest.mark.parametrize("name", ["comfyui", "standin"])
def test_an_engine_image_names_the_command_that_the_supervisor_starts(name) -> None:
    found = parse((ROOT / "images" / name / "Dockerfile").read_text())
    assert any(item.word == "ENV" and "KINORA_ENGINE_COMMAND=" in item.rest for item in found)
