"""`make setup` installs with uv under pip's settings, and with pip where uv cannot."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from small_wheels import write_wheel

from harness.system import install
from harness.system.install import (
    UV,
    cache_variables,
    certificate_variables,
    link_variables,
    pip_settings,
    uv_variables,
)

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = """
[build-system]
requires = []
build-backend = "small_wheels"
backend-path = ["."]

[project]
name = "small_project"
version = "1.0"
"""


def pip_environment(**variables: str) -> dict[str, str]:
    """The environment without pip's and uv's settings, apart from the given ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "MAKE", "MFLAGS"))}
    return kept | {"PIP_CONFIG_FILE": os.devnull} | variables


def test_settings_are_those_of_pip_itself(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://a.example/simple\nextra-index-url =\n  https://b.example\n  https://c.example\n"
        "timeout = 20\n[install]\ntimeout = 40\nfind-links = /wheels\n[download]\nproxy = http://d.example\n"
    )
    environment = pip_environment(
        PIP_CONFIG_FILE=str(tmp_path / "pip.conf"), PIP_INDEX_URL="https://e.example", PIP_PROXY=""
    )
    command = [sys.executable, "-m", "pip", "config", "list"]
    settings = pip_settings(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert settings["index-url"] == "https://e.example"
    assert settings["extra-index-url"].split() == ["https://b.example", "https://c.example"]
    assert settings["timeout"] == "40"
    assert settings["find-links"] == "/wheels"
    assert "proxy" not in settings


def test_the_default_timeout_is_used_where_there_is_no_other() -> None:
    assert pip_settings(":env:.default-timeout='180'")["timeout"] == "180"
    assert pip_settings(":env:.default-timeout='180'\nglobal.timeout='20'")["timeout"] == "20"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"index-url": "https://a.example"}, {"UV_DEFAULT_INDEX": "https://a.example"}),
        (
            {"extra-index-url": "https://a.example\nhttps://b.example"},
            {"UV_INDEX": "https://a.example https://b.example", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
        ({"find-links": "https://a.example /missing file:///missing /"}, {"UV_FIND_LINKS": "https://a.example,/"}),
        ({"find-links": "/missing"}, {}),
        ({"trusted-host": "a.example b.example"}, {"UV_INSECURE_HOST": "a.example b.example"}),
        ({"cert": "/my certificates.pem"}, {"SSL_CERT_FILE": "/my certificates.pem"}),
        ({"proxy": "http://a.example:3128"}, {"ALL_PROXY": "http://a.example:3128"}),
        ({"cache-dir": "/large/pip"}, {"UV_CACHE_DIR": "/large/pip/uv"}),
        ({"quiet": "1"}, {}),
    ],
)
def test_settings_of_pip_become_variables_of_uv(settings: dict[str, str], expected: dict[str, str]) -> None:
    variables = uv_variables(settings, {})
    variables.pop("UV_SYSTEM_CERTS", None)
    assert variables == expected


@pytest.mark.parametrize(
    ("setting", "own"),
    [
        ("index-url", "UV_DEFAULT_INDEX"),
        ("index-url", "UV_INDEX_URL"),
        ("extra-index-url", "UV_EXTRA_INDEX_URL"),
        ("cert", "SSL_CERT_FILE"),
        ("proxy", "https_proxy"),
        ("cache-dir", "UV_CACHE_DIR"),
        ("no-cache-dir", "UV_NO_CACHE"),
    ],
)
def test_what_the_user_has_set_for_uv_is_kept(setting: str, own: str) -> None:
    assert not uv_variables({setting: "https://pip.example"}, {own: "own"}).keys() - {"UV_SYSTEM_CERTS"}


def test_the_certificates_of_requests_hold_as_for_pip_unless_pip_has_its_own() -> None:
    user = {"REQUESTS_CA_BUNDLE": "/requests.pem"}
    assert uv_variables({}, user)["SSL_CERT_FILE"] == "/requests.pem"
    assert uv_variables({"cert": "/pip.pem"}, user)["SSL_CERT_FILE"] == "/pip.pem"
    assert not {"UV_SYSTEM_CERTS"} & {
        *uv_variables({}, user),
        *certificate_variables({"SSL_CERT_DIR": "/certificates"}),
    }


def test_without_a_cache_of_pip_uv_has_one_in_the_environment_that_is_removed() -> None:
    assert cache_variables({"no-cache-dir": "1", "cache-dir": "/pip"}, {}) == {
        "UV_CACHE_DIR": str(install.TEMPORARY_CACHE)
    }


def test_files_are_copied_from_a_cache_on_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert link_variables(tmp_path / "not" / "yet", {}) == {}
    if Path("/proc").stat().st_dev != tmp_path.stat().st_dev:
        assert link_variables(Path("/proc/cache"), {}) == {"UV_LINK_MODE": "copy"}
        assert link_variables(Path("/proc/cache"), {"UV_LINK_MODE": "symlink"}) == {}


def small_repository(folder: Path) -> Path:
    """A project with this repository's Makefile and `install.py` that needs one package; wheels are in `wheels`."""
    (folder / "wheels").mkdir(parents=True)
    write_wheel(folder / "wheels", "small_package", "1.0", {"small_package.py": b""})
    program = folder / "harness" / "system" / "install.py"
    program.parent.mkdir(parents=True)
    shutil.copy(install.__file__, program)
    for source in (REPOSITORY / "Makefile", REPOSITORY / "tests/helpers/small_wheels.py"):
        shutil.copy(source, folder)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "requirements.lock").write_text("small_package==1.0 ; python_version >= '3'\n")
    return folder


def make_setup(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = pip_environment(
        PIP_NO_INDEX="1", PIP_FIND_LINKS=f"{folder / 'wheels'} {folder / 'missing'}", HOME=str(folder), **variables
    )
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def imports(folder: Path, *names: str) -> bool:
    """Whether the environment that was made has these modules."""
    command = [str(folder / ".venv/bin/python"), "-c", f"import {', '.join(names)}"]
    return subprocess.run(command, cwd="/", capture_output=True).returncode == 0


def write_wheel_of_uv(folder: Path) -> None:
    """The wheel of the uv that is installed here."""
    try:
        uv = distribution("uv")
    except PackageNotFoundError:
        pytest.skip("uv is not installed in this environment")
    files = {str(path): path for path in uv.files or () if path.parts[0] == "uv" and path.suffix == ".py"}
    content = {name: Path(str(path.locate())).read_bytes() for name, path in files.items()}
    version = UV.partition("==")[2]
    program = (Path(sys.executable).parent / "uv").read_bytes()
    write_wheel(folder, "uv", version, content | {f"uv-{version}.data/scripts/uv": program})


@pytest.mark.long
def test_make_setup_installs_with_uv_and_with_pip_where_uv_fails(tmp_path: Path) -> None:
    folder = small_repository(tmp_path / "repository")
    write_wheel_of_uv(folder / "wheels")
    result = make_setup(folder, PIP_NO_CACHE_DIR="1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line[:5] for line in result.stdout.splitlines()] == ["[1/3]", "[2/3]", "[3/3]", "Insta"]
    assert "+ small-package==1.0" in result.stderr
    assert "warning" not in result.stderr.lower()
    assert imports(folder, "small_package", "small_wheels")
    assert not (folder / install.TEMPORARY_CACHE).exists()
    assert make_setup(folder).stdout == "make: Nothing to be done for 'setup'.\n"

    os.utime(folder / "requirements.lock")
    result = make_setup(folder, UV_LINK_MODE="unknown")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "uv failed; pip is used instead\n[3/3] Installing up to 1 packages" in result.stdout


@pytest.mark.long
def test_make_setup_installs_with_pip_where_uv_cannot_be_installed(tmp_path: Path) -> None:
    folder = small_repository(tmp_path / "repository")
    result = make_setup(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "uv is not available; pip is used instead\n[3/3] Installing up to 1 packages" in result.stdout
    assert imports(folder, "small_package", "small_wheels")

    version = UV.partition("==")[2]
    write_wheel(folder / "wheels", "uv", version, {f"uv-{version}.data/scripts/uv": b"not a program of this machine"})
    (folder / "requirements.lock").write_text("absent_package==1.0\n")
    result = make_setup(folder)
    assert result.returncode == 2
    assert "uv is not available; pip is used instead" in result.stdout
    assert "absent_package" in result.stderr
    assert "Traceback" not in result.stderr
    assert make_setup(folder).returncode == 2, "a failed installation is not taken for a finished one"
