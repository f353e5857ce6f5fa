"""The wheel is the product: installed elsewhere it finds its policies, and it carries nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
    ]
    subprocess.run([sys.executable, "-m", "pip", *build, str(ROOT)], check=True)
    (made,) = folder.glob("drctl-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a clean environment that has the wheel, and drctl's dependencies from ours."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (theirs,) = folder.glob("lib/python*/site-packages")
    # appended to the path, so the wheel's own drctl comes first; .pth lines of ours are not followed
    (theirs / "dependencies.pth").write_text("\n".join(ours))
    return python


def _ask(python: Path, code: str) -> str:
    # -I: neither this checkout nor PYTHONPATH may answer in the wheel's place
    done = subprocess.run(
        [str(python), "-I", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.strip()


def test_the_installed_drctl_is_the_wheels_own(installed: Path) -> None:
    assert Path(_ask(installed, "import drctl; print(drctl.__file__)")).is_relative_to(installed.parents[1])


def test_an_installed_drctl_finds_every_shipped_policy_by_name(installed: Path) -> None:
    code = (
        "from drctl.planfile.shipped import find_by_name;"
        "print(*(f'{n}={f}' for n, f in find_by_name('policies', '/nowhere').items()))"
    )
    found = dict(pair.split("=", 1) for pair in _ask(installed, code).split())
    assert set(found) == {file.stem for file in (ROOT / "policies").glob("*.yaml")}
    assert {"nightly-30d", "incremental-90d", "standby-31d"} <= set(found)
    for name, file in found.items():
        assert Path(file).is_relative_to(installed.parents[1])
        assert Path(file).read_bytes() == (ROOT / "policies" / f"{name}.yaml").read_bytes()


def test_the_installed_command_runs(installed: Path) -> None:
    done = subprocess.run(
        [installed.parent / "drctl", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"drctl \d+\.\d+\.\d+\n", done.stdout)


def test_the_wheel_carries_the_package_its_policies_and_playbooks_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "drctl/shipped/playbooks/README.md" in names
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert not [name for name in names if not name.startswith(("drctl/", "drctl-"))]
    assert not [name for name in names if name.endswith(".pyc") or "/tests/" in name]


@pytest.mark.parametrize("name", ["uv.lock", "requirements/run.txt", "requirements/dev.txt"])
def test_a_lock_names_the_public_index_only_and_no_place_of_this_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    hosts = set(re.findall(r"https?://([^/\s\"]+)", text))
    assert hosts <= {"pypi.org", "files.pythonhosted.org"}
    assert "file:" not in text
    assert not re.findall(r"(?<![\w.])/(?:home|root|work|opt|tmp|usr)/", text)


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in requirements}


def _locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return set(re.findall(r"^([a-z0-9.-]+)==\S+.*\\\n    --hash=sha256:", text, re.M))


def test_every_dependency_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed, groups = _names(project["project"]["dependencies"]), project["dependency-groups"]
    assert needed | _names(groups["build"]) <= _locked("run"), "run: make lock"
    assert needed | _names([line for group in groups.values() for line in group]) <= _locked("dev")
