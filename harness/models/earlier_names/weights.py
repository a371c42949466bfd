"""`harness.weights`, which scripts and model cards of earlier versions import, is `harness.models.weights`."""

from harness.models.weights import (
    export_weights,
    import_weights,
    load_weights,
    read_weights,
    save_weights,
    write_weights,
)

__all__ = ["export_weights", "import_weights", "load_weights", "read_weights", "save_weights", "write_weights"]
