"""Makes .venv: an environment with exactly the locked packages and this checkout, editable.

Invariant: what is installed is what requirements/*.txt locks, hash by hash; a finished .venv is left
alone, a half-made or outdated one is made again. Needs the standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# pip is the one package that cannot be fetched by pip; locked here, checked like the others
PIP = ("26.3", "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13")
SETS = ("run", "dev")


def main() -> None:
    """`setup.py run|dev`."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else "dev"
    if wanted not in SETS:
        sys.exit(f"setup: {wanted!r} is none of {', '.join(SETS)}")
    if _is_finished(wanted):
        return
    lock = ROOT / "requirements" / f"{wanted}.txt"
    _say(f"making .venv ({wanted}) with {sys.executable}")
    if not _works():
        _make_environment()
    _pip("install", "--require-hashes", "--only-binary", ":all:", "--requirement", str(lock))
    # the build backend is locked too, so nothing is fetched beside the lock
    _pip("install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT))
    _stamp(wanted).write_text(_fingerprint(wanted))
    if wanted == "dev":
        _stamp("run").write_text(_fingerprint("run"))


def _is_finished(wanted: str) -> bool:
    stamp = _stamp(wanted)
    return _works() and stamp.exists() and stamp.read_text() == _fingerprint(wanted)


def _stamp(wanted: str) -> Path:
    return VENV / f"finished-{wanted}"


def _fingerprint(wanted: str) -> str:
    parts = (f"requirements/{wanted}.txt", "pyproject.toml", ".ci/setup.py")
    digest = hashlib.sha256(b"".join((ROOT / part).read_bytes() for part in parts))
    return f"{digest.hexdigest()} {ROOT}\n"


def _works() -> bool:
    """Whether .venv runs a pip of its own, here: a moved checkout's does not, a half-made one neither."""
    try:
        done = subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and f"{VENV}/".encode() in done.stdout


def _make_environment() -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    ensurepip = find_spec("ensurepip")
    if ensurepip is not None and ensurepip.origin is not None:
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    else:
        # Debian without python3-venv: the environment needs only a pip, and the index has one
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], check=True)
        _fetch_pip()


def _fetch_pip() -> None:
    if find_spec("pip") is not None:
        line = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", f"pip=={PIP[0]}"]
        if subprocess.run(line, check=False).returncode == 0:
            return
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download_pip(Path(folder))
        subprocess.run([str(PYTHON), f"{wheel}/pip", "install", "--no-index", str(wheel)], check=True)


def _download_pip(folder: Path) -> Path:
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    name = f"pip-{PIP[0]}-py3-none-any.whl"
    _say(f"fetching {name} from {urllib.parse.urlsplit(index).hostname}")
    with urllib.request.urlopen(index, timeout=60) as page:
        links = re.findall(r'href="([^"]+)"', page.read().decode())
    found = [link for link in links if urllib.parse.urlsplit(link).path.endswith("/" + name)]
    if not found:
        sys.exit(f"setup: {index} has no {name}. Debian and Ubuntu: apt-get install python3-venv")
    with urllib.request.urlopen(urllib.parse.urljoin(index, found[0]), timeout=60) as reply:
        body = reply.read()
    if hashlib.sha256(body).hexdigest() != PIP[1]:
        sys.exit(f"setup: {name} from {index} is not the locked one")
    (folder / name).write_bytes(body)
    return folder / name


def _pip(*arguments: str) -> None:
    line = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments, "--quiet"]
    if subprocess.run(line, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        sys.exit("setup: pip failed (see above); run the same command again to go on")


def _say(text: str) -> None:
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    main()
