"""The supervisor runs in any engine image: one file, Python 3.9, nothing but the standard library."""

import ast
import sys
from pathlib import Path

from kinora.engine import supervisor


def test_it_parses_as_python_3_9_and_imports_the_standard_library_only() -> None:
    tree = ast.parse(Path(supervisor.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])
    assert imported
    assert imported - {"__future__"} <= sys.stdlib_module_names


def test_memory_of_both_kinds_of_cgroup(tmp_path: Path) -> None:
    nothing = supervisor.memory(str(tmp_path))
    assert nothing == {"currentBytes": None, "limitBytes": None, "oomKills": None}
    old = tmp_path / "memory"
    old.mkdir()
    (old / "memory.usage_in_bytes").write_text("5\n")
    (old / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (old / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert supervisor.memory(str(tmp_path)) == {"currentBytes": 5, "limitBytes": None, "oomKills": 2}
    (tmp_path / "memory.current").write_text("7\n")
    (tmp_path / "memory.max").write_text("100\n")
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert supervisor.memory(str(tmp_path)) == {"currentBytes": 7, "limitBytes": 100, "oomKills": 1}
