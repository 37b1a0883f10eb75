"""``pop3toy config init``: a first file of options, by a few questions."""

from __future__ import annotations

import os
import socket
import stat
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from glob import escape, glob
from pathlib import Path
from typing import Any, Final

import click

from ...config.table import OPTIONS, TABLES, settings_of
from ...errors import BadSetting, CannotStart
from ...files import by_its_name, new_file, owner_of_new, why_unusable
from ..options import Failed, IntRange, printable, wrong

__all__ = ["init"]

#: What is made, in a sentence each.
KINDS: Final[Mapping[str, str]] = {
    "toy": "one built-in message, and each line of the conversation on the terminal",
    "host": "POP3 for the users of this host: their Maildirs, which a mail server fills",
    "friends": "a whole mail server for a few people: POP3, SMTP and submission, with accounts",
}

#: Ports as root has them, and for anybody.
_PORTS: Final[Mapping[str, tuple[int, int]]] = {
    "port": (110, 2590),
    "tls-port": (995, 2995),
    "smtp-port": (25, 2525),
    "submission-port": (587, 2587),
    "submission-tls-port": (465, 2465),
}

#: The places of the ports that systemd opens for a whole server, as docs/systemd/alone counts them.
_OPENED: Final = {
    name: [f"systemd:domain=INET6:index={index}"]
    for index, name in enumerate(("listen", "tls-listen", "submission", "submission-tls", "smtp"))
}

#: Answers besides what the option of that name takes.
_WORDS: Final = {"certificate": ("self-signed",), "smarthost": ("none",)}

#: Users of this host that are proposed for accounts.
SHOWN: Final = 10

#: Asks a question with a default, unless the answer was given by an option or nobody is to be asked.
_Ask = Callable[[str, str, object], Any]


def _answer(name: str, help: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(f"--{name}", help=help, **more)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default="pop3toy.toml")
@click.option("--yes", is_flag=True, help="Ask nothing: what no option says is as it would be proposed.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@_answer("kind", "What is wanted.", type=click.Choice(list(KINDS)))
@_answer("maildir", "Where mail is, with {user} where the user's name goes.", metavar="PATH")
@_answer("accounts", "The accounts file; made if it is missing.", metavar="PATH")
@_answer("domain", "The mail domain of friends.", metavar="NAME")
@_answer("hostname", "This server's name, to which friends' mail programs connect.", metavar="NAME")
@_answer("certificate", "A certificate with its chain (PEM), or self-signed.", metavar="PATH")
@_answer("key", "Its private key (PEM), if that is in another file.", metavar="PATH")
@_answer("port", "The port for POP3.", type=IntRange(0, 65535))
@_answer("tls-port", "The port for POP3 over TLS.", type=IntRange(0, 65535))
@_answer("smtp-port", "The port where mail comes in.", type=IntRange(0, 65535))
@_answer("submission-port", "The port where users hand in mail.", type=IntRange(0, 65535))
@_answer("submission-tls-port", "The same over TLS.", type=IntRange(0, 65535))
@_answer("interface", "The address to listen on.", metavar="ADDRESS")
@_answer("smarthost", "The server that sends what friends write to others, or none.", metavar="URL")
@click.option("--systemd", is_flag=True, help="Friends' ports are opened by the units in docs/systemd/alone.")
def init(file: Path, yes: bool, force: bool, kind: str | None, systemd: bool, **given: Any) -> None:
    """Write a first FILE of options (pop3toy.toml), by a few questions.

    An accounts file that is missing is made beside it, empty, and so are aliases and
    a folder for the mail of friends. Nothing that is there is changed: FILE itself
    only with --force. What root makes belongs to the owner of the folder it is in.

    \b
      pop3toy config init --yes --kind toy
      pop3toy config init /etc/pop3toy/pop3toy.toml
    """
    if file.exists() and not force:
        raise Failed(printable(f"{file} is there already; --force replaces it"), os.EX_CANTCREAT)
    # Before anything is asked in vain.
    if why := _not_writable(file.absolute().parent):
        raise Failed(printable(why), os.EX_CANTCREAT)
    given = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
    answered: dict[str, object] = {}

    def ask(name: str, question: str, proposed: object) -> Any:
        if name in given:
            return _parsed(name, given[name])
        if yes:
            return proposed
        if name not in answered:
            answered[name] = click.prompt(
                question, default=proposed, value_proc=partial(_parsed, name), err=True
            )
        return answered[name]

    if kind is None:
        if not yes:
            for name, text in KINDS.items():
                click.echo(f"  {name:8} {text}", err=True)
        choice = click.Choice(list(KINDS))
        kind = "toy" if yes else click.prompt("What is wanted?", "toy", type=choice, err=True)
    assert kind is not None
    if systemd and kind != "friends":
        raise Failed("--systemd needs --kind friends", os.EX_USAGE)
    kinds: Mapping[str, Callable[[_Ask, Path], dict[str, Any]]]
    kinds = {"toy": _toy, "host": _host, "friends": partial(_friends, systemd=systemd)}
    while True:
        said = kinds[kind](ask, file.absolute().parent)
        try:
            _check(said)
            break
        except CannotStart as mistake:
            name = mistake.option if isinstance(mistake, BadSetting) else ""
            if name not in answered:
                raise Failed(printable(str(mistake)), os.EX_USAGE) from None
            # What was answered besides is not asked again.
            click.echo(f"Error: {printable(str(mistake))}", err=True)
            del answered[name]
    for made in (*_make_what_is_missing(said), *_write(file, _lines(kind, file, said), force=force)):
        click.echo(f"{printable(str(made))} is made.")
    click.echo(f"{printable(str(file))} is written.")
    for domain in said.get("domain", ()):
        if "." not in domain and not domain.startswith("["):
            click.echo(
                f"Note: nobody elsewhere can write to the mail domain {printable(domain)}; it is for trying"
                " things on this machine. If you have a domain, put it in the file.",
                err=True,
            )
    for line in _next(file, said):
        click.echo(f"  {line}")


def _parsed(name: str, answer: object) -> object:
    """An answer as a file has it.

    :raises click.UsageError: if it cannot be; then the question comes again.
    """
    text, kind = str(answer).strip(), OPTIONS[name].kind
    if text in _WORDS.get(name, ()):
        return text
    try:
        kind.parse(text)
    except ValueError as error:
        raise wrong(f"--{name}", str(error)) from None
    return int(text) if int in kind.types else text


def _check(said: dict[str, Any]) -> None:
    """See that a server can be made of it; paths become whole ones.

    :raises pop3toy.errors.CannotStart: if not.
    """
    for name in ("maildir", "accounts", "aliases", "certificate", "key", "smarthost-credentials", "queue"):
        if name in said:
            # What was typed is meant from here; what stands in a file is taken from where that is.
            said[name] = os.path.abspath(os.path.expanduser(str(said[name])))
    used: dict[int, str] = {}
    for name in _PORTS:
        if said.get(name) and (other := used.setdefault(said[name], name)) != name:
            raise BadSetting(name, f": {said[name]} is the port of --{other} already")
    settings_of(said).check_whole()


# -- what is asked ---------------------------------------------------------------------------------


def _toy(ask: _Ask, folder: Path) -> dict[str, object]:
    return {
        "port": ask("port", "Port for POP3", _port("port", root=False)),
        "interface": ask("interface", "Address to listen on", "127.0.0.1"),
        "smtp-port": ask("smtp-port", "Port where mail for anybody is taken", _port("smtp-port", root=False)),
    }


def _host(ask: _Ask, folder: Path) -> dict[str, object]:
    there = [
        place for place in ("/home/{user}/Maildir", "/var/mail/{user}") if glob(place.format(user="*/new"))
    ]
    there += [place for place in ("/home/{user}/Maildir",) if glob(place.format(user="*"))]
    said: dict[str, object] = {
        "maildir": ask("maildir", "Where are the Maildirs?", (there or ["/home/{user}/Maildir"])[0])
    }
    said["accounts"] = ask("accounts", "Accounts file, of names and hashed passwords", f"{folder}/accounts")
    said |= _certificate(ask, socket.gethostname())
    said |= _pop3_ports(ask)
    return said


def _friends(ask: _Ask, folder: Path, *, systemd: bool) -> dict[str, object]:
    here = socket.gethostname()
    domain = ask("domain", "Mail domain, what stands behind the @", here.partition(".")[2] or "localhost")
    hostname = ask("hostname", "This server's name", here if "." in here else domain)
    said: dict[str, object] = {
        "maildir": ask("maildir", "Where is the mail kept?", f"{folder}/mail/{{user}}"),
        "create": True,
        "accounts": ask("accounts", "Accounts file, of names and hashed passwords", f"{folder}/accounts"),
        "domain": [domain],
        "hostname": hostname,
        "aliases": f"{folder}/aliases",
    }
    said |= _certificate(ask, hostname)
    said |= _smarthost(ask, folder, Path("/var/lib/pop3toy" if systemd else folder))
    if systemd:
        return said | _OPENED
    said |= _pop3_ports(ask)
    said["smtp-port"] = ask("smtp-port", "Port where mail comes in", _port("smtp-port"))
    said["submission-port"] = ask(
        "submission-port", "Port where users hand in mail (STARTTLS)", _port("submission-port")
    )
    said["submission-tls-port"] = ask(
        "submission-tls-port", "The same with TLS from the first octet on", _port("submission-tls-port")
    )
    return said


def _certificate(ask: _Ask, name: str) -> dict[str, object]:
    live = f"/etc/letsencrypt/live/{name}"
    proposed = f"{live}/fullchain.pem" if os.access(f"{live}/privkey.pem", os.R_OK) else "self-signed"
    path = ask("certificate", "Certificate (PEM), or self-signed to try TLS", proposed)
    if path == "self-signed":
        return {"self-signed": True}
    key = ask(
        "key", "Its private key (PEM)", str(Path(path).with_name("privkey.pem")) if path == proposed else path
    )
    said: dict[str, object] = {"certificate": path}
    return said if key == path else said | {"key": key}


def _smarthost(ask: _Ask, folder: Path, state: Path) -> dict[str, object]:
    url = ask(
        "smarthost", "Server that sends what they write to others (smtp+starttls://HOST:587), or none", "none"
    )
    if url == "none":
        return {}
    said: dict[str, object] = {"smarthost": url, "queue": f"{state}/queue"}
    # This machine knows itself without a password.
    return said if url.startswith("smtp://") else said | {"smarthost-credentials": f"{folder}/smarthost"}


def _pop3_ports(ask: _Ask) -> dict[str, object]:
    return {
        "port": ask("port", "Port for POP3 (STLS)", _port("port")),
        "tls-port": ask("tls-port", "Port for POP3 with TLS from the first octet on", _port("tls-port")),
        "interface": ask("interface", "Address to listen on", _every_network()),
    }


def _port(name: str, *, root: bool | None = None) -> int:
    for_root, for_others = _PORTS[name]
    return for_root if (os.geteuid() == 0 if root is None else root) else for_others


def _every_network() -> str:
    """The address of every network, of IPv6 too where there is such a thing."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::", 0))
            both = not one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return "0.0.0.0"
    return "::" if both else "0.0.0.0"


# -- what is written -------------------------------------------------------------------------------


#: Files that are made if they are missing, by option, with what is in them then.
_NEW: Final[Mapping[str, str]] = {
    "accounts": "# Users and hashed passwords: pop3toy user add NAME\n",
    "aliases": "# Other names for users, such as these two, which others expect:\n"
    "#postmaster: NAME\n#abuse: NAME\n",
    "smarthost-credentials": "",
}


def _make_what_is_missing(said: Mapping[str, object]) -> Iterator[Path]:
    """Make files and the folder for mail; gives what was made."""
    for name, text in _NEW.items():
        if name not in said:
            continue
        path = Path(str(said[name]))
        yield from _make_folder(path.parent)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            continue
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            _give(file.fileno(), path.parent)
        yield path
    if said.get("create"):
        root = Path(os.path.dirname(str(said["maildir"]).partition("{user}")[0]))
        yield from _make_folder(root, 0o700)


def _make_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """Make a folder and those above it; gives what was made."""
    if path.exists():
        return
    yield from _make_folder(path.parent)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with by_its_name(path):
            os.mkdir(path.name, mode, dir_fd=parent)
        made = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            if (owner := owner_of_new(made, parent)) is not None:
                os.fchown(made, *owner)
        finally:
            os.close(made)
    finally:
        os.close(parent)
    yield path


def _give(made: int, folder: Path) -> None:
    """What root makes in somebody's folder is for that user, who will run the server."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(made, owner.st_uid, owner.st_gid)


def _not_writable(folder: Path) -> str | None:
    """Why nothing can be made in a folder, which may be missing; ``None`` if it can."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return why_unusable(str(there), stat.S_ISDIR, "folder", os.W_OK | os.X_OK, "write in")


def _lines(kind: str, file: Path, said: Mapping[str, object]) -> Iterator[str]:
    yield f"# pop3toy: {KINDS[kind]}."
    yield "#"
    yield f"#     {_start(file, said)}"
    yield "#"
    yield "# docs/reference.rst has all options; `pop3toy config check` looks whether all is right."
    for table in TABLES:
        if not any(OPTIONS[name].table == table for name in said):
            continue
        yield ""
        yield f"[{table}]"
        for name, one in OPTIONS.items():
            if one.table == table and name in said:
                yield ""
                yield from textwrap.wrap(one.help, 100, initial_indent="# ", subsequent_indent="# ")
                yield f"{name} = {_written(said[name])}"


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, int):
        return str(value)
    text = str(value).replace("\\", r"\\").replace('"', r"\"")
    return '"{}"'.format("".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in text))


def _write(file: Path, lines: Iterable[str], *, force: bool) -> Iterator[Path]:
    """Write it whole, and over nothing that has come meanwhile; gives folders that were made."""
    yield from _make_folder(file.absolute().parent)
    try:
        with new_file(file, replace=force) as new:
            new.write("".join(f"{line}\n" for line in lines).encode("utf-8"))
            # It holds no secret, and the server may run as somebody else.
            os.fchmod(new.fileno(), 0o644)
            _give(new.fileno(), file.parent)
    except FileExistsError:
        raise Failed(printable(f"{file} is there already"), os.EX_CANTCREAT) from None


def _with_mail(pattern: str) -> list[str]:
    """Users who have a Maildir, some of them."""
    before, _, after = pattern.partition("{user}")
    found = glob(f"{escape(before)}*{escape(after)}/new")
    return sorted(one[len(before) :].removesuffix(f"{after}/new") for one in found)[:SHOWN]


def _next(file: Path, said: Mapping[str, object]) -> Iterator[str]:
    name = printable(str(file))
    yield f"pop3toy config check {name}"
    if "accounts" in said:
        for user in _with_mail(str(said["maildir"])) or ["NAME"]:
            yield f"pop3toy user add --config {name} {printable(user)}"
    if "smarthost-credentials" in said:
        yield f"write user:password into {printable(str(said['smarthost-credentials']))}"
    yield _start(file, said)


def _start(file: Path, said: Mapping[str, object]) -> str:
    if said.get("listen") == _OPENED["listen"]:
        return "systemctl enable --now pop3toy.socket pop3toy.service"
    return f"pop3toy serve --config {printable(str(file))}"
