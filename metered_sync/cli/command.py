"""Name the type that commands add themselves to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeAlias

__all__ = ["Commands"]

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
else:  # argparse's class is not generic at run time
    Commands = argparse._SubParsersAction
