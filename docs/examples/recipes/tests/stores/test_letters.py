"""A folder of letters keeps the promises of a store."""

from collections.abc import Sequence
from pathlib import Path

from pop3toy.stores.letters import letters_store
from pop3toy.stores.memory import MemoryStore
from pop3toy.tap import Options

from ..run.test_server import MemoryCase
from . import test_memory


class ContractTests(test_memory.MemoryStoreContractTests):
    """The contract of a store."""

    def store(self, messages: Sequence[bytes]) -> MemoryStore:
        folder = Path(self.mktemp())
        folder.mkdir()
        for number, message in enumerate(messages):
            (folder / f"{number:04}.eml").write_bytes(message)
        return letters_store(str(folder), [self.USER])


class OptionTests(MemoryCase):
    """``--letters``."""

    def test_served(self) -> None:
        """The letters in the folder are fetched."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "one.eml").write_bytes(b"Subject: x\n\nx\n")
        options = Options()
        options.parseOptions(["--port=1", f"--letters={folder}", "--user=ann:secret"])
        self.started(options.settings)
        self.assertIn(b"\r\nSubject: x\r\n", self.talk(1, b"USER ann", b"PASS secret", b"RETR 1"))
