"""Wheels of a few lines, and the build backend of a small project, for installing without an index."""

from pathlib import Path
from zipfile import ZipFile, ZipInfo


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> str:
    """Writes the wheel of a package with the given files, all of them executable; returns its name."""
    metadata = f"{name}-{version}.dist-info"
    files = files | {
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{metadata}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{metadata}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{metadata}/RECORD"]).encode()
    wheel = f"{name}-{version}-py3-none-any.whl"
    with ZipFile(folder / wheel, "w") as archive:
        for path, content in files.items():
            information = ZipInfo(path)
            information.external_attr = 0o100755 << 16
            archive.writestr(information, content)
    return wheel


def build_editable(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:
    """The hook by which pip and uv install a project as editable."""
    del config_settings, metadata_directory
    path = f"{Path.cwd()}\n".encode()
    return write_wheel(Path(wheel_directory), "small_project", "1.0", {"small_project.pth": path})
