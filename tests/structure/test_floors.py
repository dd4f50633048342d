"""The floors hold: an import goes down, never up, and never in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import netsens

ROOT = Path(netsens.__file__).parent

# From the ground up. Modules beside the floors stand where their name says.
FLOORS = ["errors", "values", "graph", "rules", "modes", "jacobian", "run", "analyse", "report", "model", "pipeline", "cli"]
# `run` and `jacobian` serve `model`; `report` knows nothing of models, so it may stand anywhere above `errors`.
FREE = {"report": {"errors", "report"}}


def floor(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("netsens"):
            found.add(node.module if node.module != "netsens" else "netsens.model")
        elif isinstance(node, ast.Import):
            found.update(a.name for a in node.names if a.name.startswith("netsens."))
    return found


def type_checking_only(path: Path) -> set[str]:
    """Modules imported for annotations alone, which nothing needs at run time."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for inner in ast.walk(node):
                if isinstance(inner, ast.ImportFrom) and inner.module:
                    found.add(inner.module)
    return found


MODULES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem not in ("__init__", "__main__"))


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(ROOT)) for p in MODULES])
def test_imports_go_down(path: Path) -> None:
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert here in FLOORS, f"{here} is not a floor"
    for module in imports(path) - type_checking_only(path):
        there = floor(module)
        assert there in FREE.get(here, set(FLOORS[: FLOORS.index(here) + 1])), f"{path.name} imports {module}, which lies above it"


@pytest.mark.parametrize("floor", sorted(p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()))
def test_no_floor_has_a_circle_of_imports(floor: str) -> None:
    """Not even of imports inside functions; those for annotations alone may look back."""
    modules = {".".join(p.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in (ROOT / floor).rglob("*.py")}
    del modules[f"netsens.{floor}"]  # a floor's own __init__ stands above its modules
    inside = {name: {m for m in imports(path) - type_checking_only(path) if m in modules and m != name} for name, path in modules.items()}
    assert list(TopologicalSorter(inside).static_order())  # raises where there is one


def test_help_imports_neither_onnx_nor_onnxruntime() -> None:
    code = "import sys, netsens.cli.main as m; m.run(['--help']); bad = {'onnx', 'onnxruntime', 'numpy', 'rich'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "grad" in done.stdout


def test_every_module_says_what_lives_in_it() -> None:
    for path in MODULES:
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, f"{path} has no docstring"
