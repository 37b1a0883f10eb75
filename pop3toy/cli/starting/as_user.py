"""Look as another user: in a process of its own, which has given up being root."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..options import Failed, printable

__all__ = ["RunsAs", "as_user", "unit_of", "who_runs_it"]

#: Where an administrator and a package put the unit.
_UNITS = ("/etc/systemd/system/pop3toy.service", "/usr/lib/systemd/system/pop3toy.service")


class RunsAs(NamedTuple):
    """The user that a server will run as."""

    user: pwd.struct_passwd
    #: Whether it begins as root, which opens ports and reads certificates (``twistd --uid``).
    begins_as_root: bool = False
    #: Whether it may open ports below 1024 (``AmbientCapabilities=CAP_NET_BIND_SERVICE``).
    may_bind: bool = False
    #: The unit that says so, if one does.
    unit: str = ""


def unit_of(file: Path) -> Path | None:
    """The unit that starts a server with this file, if it is where units are."""
    for path in map(Path, _UNITS):
        try:
            if str(file.absolute()) in path.read_text("utf-8", "replace"):
                return path
        except OSError:
            continue
    return None


def who_runs_it(user: str | None, uid: str | None, unit: Path | None) -> RunsAs | None:
    """The user that options or a unit name; ``None`` for whoever runs the command.

    :raises Failed: for a user whom nobody knows, or a unit that cannot be read.
    """
    if user or uid:
        return RunsAs(_user(user or uid or ""), begins_as_root=bool(uid))
    if unit is None:
        return None
    said: dict[str, str] = {}
    try:
        for line in unit.read_text("utf-8", "replace").splitlines():
            name, equals, value = line.partition("=")
            if equals and name.strip() in ("User", "AmbientCapabilities"):
                said[name.strip()] = value.strip()
    except OSError as error:
        raise Failed(f"{unit}: {(error.strerror or str(error)).lower()}", os.EX_NOINPUT) from None
    may_bind = "CAP_NET_BIND_SERVICE" in said.get("AmbientCapabilities", "")
    return RunsAs(_user(said.get("User") or "root"), may_bind=may_bind, unit=str(unit))


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        raise Failed(f"there is no user {name} on this machine", os.EX_NOUSER) from None


def as_user(user: pwd.struct_passwd | None, look: Callable[[], Any]) -> Any:
    """What ``look`` returns, which has to be a value of JSON, to a user who may do no more than this one.

    :param user: ``None`` for the one that this process has.
    :raises Failed: if this process may not become that user.
    """
    if user is None or user.pw_uid == os.geteuid():
        return look()
    if os.geteuid() != 0:
        raise Failed(f"only root can look as another user, {user.pw_name}", os.EX_NOPERM)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        # Whatever happens: this process is not to go on with what its parent does.
        status = 1
        try:
            os.close(reading)
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.environ["HOME"] = user.pw_dir
            try:
                answer: object = [look()]
            except Exception as error:
                # Such as that this user may not read Python's own modules.
                answer = f"{type(error).__name__}: {error}"
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                json.dump(answer, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    answered = json.loads(said or '"it died"')
    if isinstance(answered, str):
        raise Failed(printable(f"looking as {user.pw_name} failed: {answered}"), os.EX_SOFTWARE)
    return answered[0]
