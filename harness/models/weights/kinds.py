"""Recognizes files that are not weights by their first bytes, for error messages."""

import re
import zipfile
from pathlib import Path

HEAD = 4096
"""Number of bytes that are read."""
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of files by `torch.save` before PyTorch 1.6: a pickled number."""

DOWNLOAD_AGAIN = "Fetch the file again."
CONVERT_FIRST = "Load it with the library that wrote it, and save its weights by `torch.save` or as safetensors."

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer and not the file that it refers to", "Run `git lfs pull` there."),
    (b"version https://hawser", "a Git LFS pointer and not the file that it refers to", "Run `git lfs pull` there."),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write it", CONVERT_FIRST),
    (b"\x93NUMPY", "a NumPy array (.npy)", CONVERT_FIRST),
    (b"GGUF", "a GGUF file, as llama.cpp reads it", CONVERT_FIRST),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it, and give the file of weights in it."),
    (b"BZh", "compressed with bzip2", "Unpack it, and give the file of weights in it."),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it, and give the file of weights in it."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it, and give the file of weights in it."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it, and give the file of weights in it."),
    (b"Rar!", "a RAR archive", "Unpack it, and give the file of weights in it."),
    (b"\x89PNG", "a picture (PNG)", "Check the path."),
    (b"\xff\xd8\xff", "a picture (JPEG)", "Check the path."),
    (b"%PDF", "a PDF document", "Check the path."),
)
"""First bytes, a description of such a file, and a remedy."""


def describe_file(path: Path) -> tuple[str, str]:
    """A description of a file, to follow the words "it is", and a remedy; an unknown file is called damaged."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return "empty", DOWNLOAD_AGAIN
    for start, description, remedy in SIGNATURES:
        if head.startswith(start):
            return description, remedy
    if re.match(rb"\s*(<!doctype html|<html|<\?xml|<head)", head, re.IGNORECASE):
        return "a web page (HTML) and not the file that was to be downloaded", "Fetch the file itself."
    if head.startswith(b"PK"):
        return _describe_zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive", "Unpack it, and give the file of weights in it."
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", CONVERT_FIRST
    if path.suffix == ".onnx" or (
        head[0] == 0x08 and head[2:3] in (b"\x12", b"\x1a", b":", b"B") and b"pytorch" in head
    ):
        return "an ONNX graph", "Take the checkpoint that it was exported from."
    if path.suffix in (".pb", ".tflite", ".h5", ".keras", ".msgpack") or ".data-00000-of-" in path.name:
        return f"a file of another library ({path.suffix or path.name})", CONVERT_FIRST
    if head[0] == 0x80:
        return "a pickle that is damaged: cut short, or changed", DOWNLOAD_AGAIN
    if head[8:9] == b"{":
        return "a safetensors file that is damaged", DOWNLOAD_AGAIN
    return _describe_text(head)


def _describe_text(head: bytes) -> tuple[str, str]:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "damaged, or something else", DOWNLOAD_AGAIN
        text = head[: error.start].decode("utf-8")
    if any(ord(letter) < 9 for letter in text):
        return "damaged, or something else", DOWNLOAD_AGAIN
    first = " ".join(text.split())[:40]
    kind = "JSON" if first.startswith(("{", "[")) else "a text"
    return f"{kind} that begins with {first!r}", "Check the path."


def _describe_zip(path: Path) -> tuple[str, str]:
    if not zipfile.is_zipfile(path):
        return "a checkpoint or another zip archive that is damaged: cut short", DOWNLOAD_AGAIN
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript archive (torch.jit.save), which holds code",
            "Load it with `torch.jit.load` if you trust it, and save its state dict.",
        )
    if any(name.endswith("data.pkl") for name in names):
        return "a checkpoint that is damaged", DOWNLOAD_AGAIN
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", CONVERT_FIRST
    if "model.weights.h5" in names:
        return "a Keras model (.keras)", CONVERT_FIRST
    first = ", ".join(name[:60] for name in names[:3]) or "none"
    return f"a zip archive of other files ({first})", "Unpack it, and give the file of weights in it."
