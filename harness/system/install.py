"""Creates `.venv` with the packages of `requirements.lock` and this one; `make setup` runs it.

uv installs: it downloads and unpacks in parallel, and shows its progress. It does not read pip's settings, so they are
passed to it as environment variables, except where the user has set uv's own. Some settings of pip have no equivalent,
as those of its keyring: where uv fails, or cannot be installed, pip installs. This file imports no other packages.
"""

import ast
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

UV = "uv==0.13.9"
FOLDER = Path(".venv")
PYTHON = FOLDER / "bin" / "python"
UV_PROGRAM = FOLDER / "bin" / "uv"
TEMPORARY_CACHE = FOLDER / ".uv_cache"
PIP_INSTALL = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
PACKAGES = ["--no-deps", "--requirement", "requirements.lock", "--editable", "."]

SINGLE = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"),
}
"""pip's settings with one value: uv's variable, and other variables that keep it from being set."""

LISTS = {
    "extra-index-url": (("UV_INDEX", "UV_EXTRA_INDEX_URL"), " "),
    "find-links": (("UV_FIND_LINKS",), ","),
    "trusted-host": (("UV_INSECURE_HOST",), " "),
    "constraint": (("UV_CONSTRAINT",), " "),
}
"""pip's settings with several values: the same variables, and what separates the values for uv."""

OPTIONS = ("no-binary", "only-binary")
"""pip's settings for which uv has an option of the same name and no variable."""


def pip_settings(listing: str) -> dict[str, str]:
    """The settings that hold for `pip install`, by name, from the output of `pip config list`."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in sections and (text := str(ast.literal_eval(value)).strip()):
            sections[section][name] = text
    settings = sections["global"] | sections["install"] | sections[":env:"]
    if "default-timeout" in settings:
        settings.setdefault("timeout", settings["default-timeout"])
    return settings


def uv_variables(settings: Mapping[str, str], user: Mapping[str, str]) -> dict[str, str]:
    """The environment variables with which uv follows pip's `settings`, apart from those that the `user` has set."""
    bundle = user.get("REQUESTS_CA_BUNDLE") or user.get("CURL_CA_BUNDLE")
    settings = ({"cert": bundle} if bundle else {}) | dict(settings)
    result = {}
    for name, variables in SINGLE.items():
        if name in settings and not any(user.get(variable) for variable in variables):
            result[variables[0]] = settings[name]
    for name, (variables, separator) in LISTS.items():
        if name in settings and not any(user.get(variable) for variable in variables):
            values = [value for value in settings[name].split() if name != "find-links" or is_place(value)]
            result |= {variables[0]: separator.join(values)} if values else {}
    if "UV_INDEX" in result:  # pip takes a version from any index that has it
        result["UV_INDEX_STRATEGY"] = user.get("UV_INDEX_STRATEGY") or "unsafe-best-match"
    return result | cache_variables(settings, user) | certificate_variables(result | dict(user))


def is_place(link: str) -> bool:
    """Whether packages can be found there: pip ignores a folder that does not exist, and uv refuses it."""
    path = link.removeprefix("file://")
    return "://" in path or Path(path).exists()


def cache_variables(settings: Mapping[str, str], user: Mapping[str, str]) -> dict[str, str]:
    """Where uv's cache is if pip has another than the usual one, or none: then it is removed after the installation."""
    if user.get("UV_CACHE_DIR") or user.get("UV_NO_CACHE"):
        return {}
    if "no-cache-dir" in settings:
        return {"UV_CACHE_DIR": str(TEMPORARY_CACHE)}
    return {"UV_CACHE_DIR": str(Path(settings["cache-dir"]).expanduser() / "uv")} if "cache-dir" in settings else {}


def certificate_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Makes uv trust the certificates of the system, as pip does, where there are any and none are chosen."""
    chosen = any(environment.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_SYSTEM_CERTS"))
    available = sys.platform == "darwin" or ssl.get_default_verify_paths().cafile is not None
    return {"UV_SYSTEM_CERTS": "true"} if available and not chosen else {}


def link_variables(cache: Path, user: Mapping[str, str]) -> dict[str, str]:
    """Makes uv copy files from a cache on another file system, where it would warn that it cannot link them."""
    parent = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    same = parent.stat().st_dev == Path.cwd().stat().st_dev
    return {} if same or user.get("UV_LINK_MODE") else {"UV_LINK_MODE": "copy"}


def output_of(command: Sequence[object], environment: Mapping[str, str]) -> str:
    """What a command prints; nothing if it fails or cannot be executed."""
    try:
        result = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def succeeds(command: Sequence[object], environment: Mapping[str, str] | None = None) -> bool:
    """Runs a command whose output the user sees."""
    return subprocess.run(list(map(str, command)), env=environment).returncode == 0


def install_uv() -> bool:
    """Installs uv into the environment; False where no index has a wheel of it, or it cannot be executed."""
    is_installed = succeeds([*PIP_INSTALL, "-qq", "--only-binary", "uv", UV])
    return is_installed and output_of([UV_PROGRAM, "--version"], os.environ) != ""


def run_uv(arguments: Sequence[str]) -> bool:
    """Runs `uv pip` with pip's settings."""
    user = dict(os.environ)
    settings = pip_settings(output_of([PYTHON, "-m", "pip", "config", "list"], user))
    environment = user | uv_variables(settings, user)
    environment |= link_variables(Path(output_of([UV_PROGRAM, "cache", "dir"], environment) or "."), user)
    options = [f"--{name}={settings[name]}" for name in OPTIONS if name in settings]
    options += ["--no-index"] if "no-index" in settings else []
    try:
        return succeeds([UV_PROGRAM, "pip", *arguments, *options], environment)
    finally:
        shutil.rmtree(TEMPORARY_CACHE, ignore_errors=True)


def stage(number: int, text: str) -> None:
    """Prints what happens next."""
    print(f"[{number}/3] {text}", flush=True)


def install_packages(has_uv: bool) -> bool:
    """Installs the packages with uv if it is there, otherwise, or if that fails, with pip."""
    count = len(Path("requirements.lock").read_text().splitlines())
    what = f"up to {count} packages" + (", 2.9 GB with torch's CUDA libraries" if sys.platform == "linux" else "")
    if has_uv:
        stage(3, f"Installing {what}; takes 30 s to 5 min")
        if run_uv(["install", "--python", str(PYTHON), *PACKAGES]):
            return True
    print(f"uv {'failed' if has_uv else 'is not available'}; pip is used instead", flush=True)
    stage(3, f"Installing {what}; takes 2 to 10 min")
    return succeeds([*PIP_INSTALL, *PACKAGES])


def install() -> int:
    """Creates the environment and installs into it; returns the exit code."""
    started = time.monotonic()
    stage(1, f"Creating {FOLDER} with Python {sys.version.split()[0]}")
    if not succeeds([sys.executable, "-m", "venv", FOLDER]):
        return 2
    stage(2, f"Installing {UV} (18 MB), which downloads packages in parallel")
    if not install_packages(install_uv()):
        return 2
    print(f"Installed in {time.monotonic() - started:.0f} seconds.", flush=True)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Without arguments installs; with arguments runs `uv pip` with them in the environment that there is."""
    os.chdir(Path(__file__).resolve().parents[2])
    try:
        if not arguments:
            return install()
        return 0 if install_uv() and run_uv(arguments) else 2
    except KeyboardInterrupt:
        print("Interrupted. The same command continues with what has been downloaded.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
