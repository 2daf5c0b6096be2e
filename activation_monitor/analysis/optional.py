"""Packages that are needed for one thing only, and imported when it is used."""

import importlib
from typing import Any


def optional(package: str, where: str, extra: str = "") -> Any:
    """Import a package that may not be installed.

    Args:
        package: The name under which it is imported and installed.
        where: What the user called, for the message.
        extra: The extra of this package that has it. Defaults to `""`: none.

    Returns:
        The module.

    Raises:
        ImportError: If it is not installed, with the command that installs it; or the
            error that it raises itself.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is installed, and misses something itself
            raise
        how = f", or activation-monitor with the extra `{extra}`" if extra else ""
        raise ImportError(
            f"{where} needs {package}, which is not installed. Install it with "
            f"`pip install {package}`{how}."
        ) from None
