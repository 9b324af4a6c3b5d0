"""The scripts of data_scripts as a person calls them."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def run_data_script(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a script to its end; its status and what it printed."""
    command = [sys.executable, str(REPOSITORY / "data_scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
