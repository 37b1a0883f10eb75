"""The C programs of the benchmark, and compiling them into a directory for one run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["CompilerMissing", "build"]

_HERE = Path(__file__).parent
_LIBRARIES = {"pop3load": ["-lssl", "-lcrypto"], "sendfile_server": []}


class CompilerMissing(Exception):
    """Something needed for compiling is not installed; the text names the Debian package."""


def build(program: str, into: Path) -> Path:
    """Compile ``pop3load`` or ``sendfile_server``.

    :raises CompilerMissing: if the compiler or OpenSSL's headers are not there.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise CompilerMissing("no C compiler: apt-get install gcc libc6-dev libssl-dev")
    target = into / program
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-o", str(target), str(_HERE / f"{program}.c"), *_LIBRARIES[program]],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        if "openssl/" in done.stderr or "cannot find -lssl" in done.stderr:
            raise CompilerMissing("OpenSSL's headers are missing: apt-get install libssl-dev")
        raise CompilerMissing(f"cannot compile {program} (apt-get install gcc libc6-dev):\n{done.stderr}")
    return target
