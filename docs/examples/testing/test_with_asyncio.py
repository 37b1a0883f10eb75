"""Tests of a client on asyncio: the server has a thread of its own, so the event loop is the client's."""

from __future__ import annotations

import asyncio
import ssl
import unittest

from pop3toy.testing import running_server


async def uids(host: str, port: int, user: str, password: str, cafile: str) -> list[str]:
    """The program under test: the unique-ids of all messages."""
    reader, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context(cafile=cafile))

    async def say(line: str) -> None:
        writer.write(f"{line}\r\n".encode())
        answer = await reader.readline()
        if not answer.startswith(b"+OK"):
            raise RuntimeError(answer.decode())

    await reader.readline()
    await say(f"USER {user}")
    await say(f"PASS {password}")
    await say("UIDL")
    found = []
    while (line := (await reader.readline()).decode().split()) != ["."]:
        found.append(line[1])
    await say("QUIT")
    writer.close()
    await writer.wait_closed()
    return found


class UidsTests(unittest.IsolatedAsyncioTestCase):
    """Each test is a coroutine; starting and stopping a server blocks for some milliseconds."""

    async def test_uids(self) -> None:
        """Two servers at once, TLS from the first octet on."""
        with (
            running_server(mailboxes={"ann": ["Subject: one\n\n1\n"]}, tls="implicit") as first,
            running_server(mailboxes={"ann": []}, tls="implicit") as second,
        ):
            first.deliver("ann", "Subject: two\n\n2\n", uid="two")
            found = await asyncio.gather(
                *(uids("localhost", one.tls_port, "ann", "pass", one.ca_file) for one in (first, second))
            )
            self.assertEqual(found, [first.mailbox("ann").uids, []])
            # Whatever waits belongs into a thread, so that the client goes on meanwhile.
            session = await asyncio.to_thread(first.wait_for_session)
            self.assertEqual(session.commands, ["USER ann", "PASS ****", "UIDL", "QUIT"])


if __name__ == "__main__":
    unittest.main()
