"""Whole servers on a real Ceph, while parts of it are killed or the network hangs: nothing is lost or twice.

Senders and readers work all the while, and what they were told is compared (``tests/ledger.py``).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from pop3toy.stores.objects.engine import KEYS
from pop3toy.stores.objects.lease import MARGIN, TTL
from pop3toy.stores.objects.records import message_key, messages_prefix, new_name
from pop3toy.stores.objects.users import Users

from ...ledger import Doing, Ledger, Reader, Writer
from ...realserver import RealServer, wait_until
from ...s3servers import Proxy
from ...strictclient import Refused, StrictClient, logged_in
from .places import CephPlace

#: Seconds in which everybody has an answer whatever hangs, on a busy machine.
BOUNDED = 60.0
#: Seconds in which those have an answer for whom nothing hangs.
AT_ONCE = 15.0
USERS = ("ann", "bob", "cid", "dan")


class FailureCase(CephPlace):
    """Servers, and ledgers of their users.

    :cvar users: who get mail all the while.
    :ivar servers: two of them, each with a gateway of its own.
    """

    users: Sequence[str] = USERS[:2]

    def setUp(self) -> None:
        super().setUp()
        self.ledgers = [Ledger(user) for user in self.users]
        self.servers = [self.serve(endpoint=endpoint) for endpoint in self.endpoints()]

    def endpoints(self) -> Sequence[str]:
        """Where the servers find a gateway."""
        return self.ceph.endpoints

    def serve(self, **where: str) -> RealServer:
        """Start one more server.

        :param where: as for ``options``.
        """
        server = RealServer(
            *self.options(**where),  # type: ignore[arg-type]
            *(f"--user={user}:secret" for user in USERS),
            "--smtp-port=0",
            "--domain=localhost",
            "--lock-wait=0",
            "--max-per-address=1000",
        )
        self.addCleanup(server.terminate)
        # Before that: it gives back what it holds.
        self.addCleanup(self.ceph.start)
        server.port_for("SMTP")
        return server

    def writer(self, ledger: Ledger, at: int) -> Writer:
        """One who sends by one of the servers, also when that was started anew."""
        writer = Writer(ledger, lambda: self.servers[at].port_for("SMTP"))
        self.addCleanup(writer.close)
        return writer

    def reader(self, ledger: Ledger, at: int, **how: Any) -> Reader:
        """One who reads by one of the servers."""
        return Reader(ledger, lambda: self.servers[at].port, **how)

    def load(self) -> ExitStack:
        """Senders and readers for each user at each server, until the end of the block."""
        stack = ExitStack()
        for ledger in self.ledgers:
            for at in range(len(self.servers)):
                stack.enter_context(self.writer(ledger, at))
                stack.enter_context(self.reader(ledger, at))
        return stack

    def more(self, what: Callable[[Ledger], int], count: int, why: str) -> None:
        """Wait until something happened so often more for each user."""
        before = [what(ledger) for ledger in self.ledgers]

        def happened() -> bool:
            for ledger in self.ledgers:
                self.assertEqual([], ledger.wrong[:3])
            return all(what(one) >= had + count for one, had in zip(self.ledgers, before, strict=True))

        wait_until(happened, why, pause=0.05)

    def works(self) -> None:
        """Wait until mail comes and is read again, without a restart."""
        self.more(lambda ledger: len(ledger.acknowledged), 20, "messages are delivered")
        self.more(lambda ledger: len(ledger.deleted), 5, "messages are deleted")

    def verdict(self) -> None:
        """Nothing is wrong: in all that was seen, and in what is there now."""
        for ledger in self.ledgers:
            last = self.reader(ledger, 0, share=0, again=True)
            wait_until(last.once, "a last look", pause=0.2)
            self.assertEqual([], ledger.wrong[:3])
            self.assertLess(ledger.slowest, BOUNDED)
            # Else the test has looked at nothing.
            self.assertGreater(len(ledger.acknowledged), 40)
            self.assertGreater(len(ledger.deleted), 10)
            self.assertGreater(len(ledger.sessions), 5)


class KilledTests(FailureCase):
    """kill -9 of what keeps the mail."""

    def test_one_osd(self) -> None:
        """Without one of three OSDs all goes on; and when it is back, with another one away."""
        with self.load():
            self.works()
            for osd in self.ceph.osds[:2]:
                osd.kill()
                self.works()
                osd.start()
                self.ceph.wait_for_osds()
        self.verdict()

    def test_everything(self) -> None:
        """All killed at once and started again: what was acknowledged is there, and the servers go on."""
        with self.load():
            self.works()
            self.ceph.kill()
            self.more(lambda ledger: ledger.troubles, 2, "everybody is told")
            self.ceph.start()
            self.works()
        self.verdict()


class _ProxiedCase(FailureCase):
    """Two servers for ann and bob, one behind a proxy.

    :ivar proxy: between the first server and its gateway; the second server has the other gateway.
    """

    def setUp(self) -> None:
        super().setUp()
        self.ledger = self.ledgers[0]
        self.engine = self.engines().main
        self.writers = [self.writer(self.ledger, at) for at in range(2)]
        self.readers = [self.reader(self.ledger, at) for at in range(2)]

    def endpoints(self) -> list[str]:
        """The first server has a proxy before its gateway."""
        self.proxy = Proxy(self.ceph.endpoints[0])
        self.addCleanup(self.proxy.close)
        return [self.proxy.endpoint, self.ceph.endpoints[1]]

    def at(self, request: str, do: Callable[[], object]) -> None:
        """When such a request of this test's passes the proxy, do something first.

        :param request: the method and the first letter of the key, as in ``PUT m``; or a part of it.
        """
        method, letter = request.split()
        self.proxy.when(f"{method} /{self.url.removeprefix('s3://')}/{letter}/".encode(), do)

    def look(self, count: int) -> None:
        """Nothing is wrong, so many messages are there for each server."""
        for at in range(2):
            last = self.reader(self.ledger, at, share=0, again=True)
            wait_until(last.once, "a last look", pause=0.2)
            self.assertEqual(count, last.listed)
        self.assertEqual([], self.ledger.wrong[:3])
        self.assertLess(self.ledger.slowest, BOUNDED)


class GatewayTests(_ProxiedCase):
    """A gateway that dies, or whose answers are lost, at the worst moments."""

    def test_killed_in_listing(self) -> None:
        """A maildrop that cannot be listed is not an empty one, and is not left locked."""
        self.assertTrue(self.writers[1].send())
        self.proxy.when(b"?list-type=2", self.ceph.gateways[0].kill)
        self.assertFalse(self.readers[0].once())
        self.assertTrue(self.proxy.done)
        self.assertEqual((1, []), (self.ledger.troubles, self.ledger.sessions))
        self.ceph.start()
        wait_until(self.readers[0].once, "it is listed", pause=0.2)
        self.look(1)

    def test_killed_in_retr(self) -> None:
        """The client gets the beginning and no end of a message; later all of it."""
        self.assertTrue(self.writers[1].send(5_000_000))
        with StrictClient(self.servers[0].port, receive_buffer=64 * 1024) as client:
            client.login()
            self.proxy.when(b"bytes=2097152-", self.ceph.gateways[0].kill)
            client.command(b"RETR 1")
            began = time.monotonic()
            self.assertRaises((EOFError, ConnectionResetError), client.body)
            self.assertLess(time.monotonic() - began, BOUNDED)
        self.assertTrue(self.proxy.done)
        self.ceph.start()
        wait_until(self.readers[0].once, "it is fetched", pause=0.2)
        self.assertEqual({1}, self.ledger.acknowledged)
        self.look(1)

    def test_killed_in_delivery(self) -> None:
        """The sender is told to try again; what it sends then is there, and no other twice."""
        self.assertTrue(self.writers[0].send())
        self.at("PUT m", self.ceph.gateways[0].kill)
        self.assertFalse(self.writers[0].send())
        self.assertTrue(self.proxy.done)
        self.assertEqual(1, self.ledger.troubles)
        self.assertTrue(self.writers[1].send())
        self.ceph.start()
        wait_until(self.writers[0].send, "mail is taken again", pause=0.2)
        self.look(3)

    def test_killed_in_quit(self) -> None:
        """The client is told that not all was removed; what it removes later is gone, and nothing else."""
        for writer in self.writers * 3:
            self.assertTrue(writer.send())
        self.proxy.when(b"POST /mail", self.ceph.gateways[0].kill)
        self.assertFalse(self.readers[0].once())
        self.assertTrue(self.proxy.done)
        self.assertEqual((1, set()), (self.ledger.troubles, self.ledger.deleted))
        self.ceph.start()
        wait_until(self.readers[0].once, "they are removed", pause=0.2)
        self.look(4)
        # And it is nobody's.
        self.assertTrue(self.readers[1].once())

    def test_killed_in_long_quit(self) -> None:
        """In the middle of a removal by several requests at once; another session removes what is left."""
        self.assertTrue(self.writers[1].send())
        drop = Users(self.engines()).find(self.ledger.user).drop
        (kept,) = [one.name for one in self.engine.list(messages_prefix(drop))]
        names = [new_name(at, "long") for at in range(12 * KEYS)]
        with ThreadPoolExecutor(16) as pool:
            for made in [pool.submit(self.engine.create, message_key(drop, name), b"\r\n") for name in names]:
                made.result()
        requests: list[object] = []

        def come() -> None:
            requests.append(None)
            if len(requests) == 2:
                self.ceph.gateways[0].kill()
            else:
                self.proxy.when(b"POST /mail", come)

        self.proxy.when(b"POST /mail", come)
        refusal = self.assertRaises(Refused, self.removes_all_but, 0, kept)
        self.assertEqual(b"SYS/TEMP", refusal.code)
        self.assertEqual(2, len(requests))
        self.ceph.start()
        left = {one.name for one in self.engine.list(messages_prefix(drop))}
        self.assertGreater(len(left), KEYS)
        self.assertLessEqual(left, {kept, *names})
        wait_until(lambda: self.in_use_or(self.removes_all_but, 1, kept), "they are removed", pause=0.2)
        self.assertEqual([kept], [one.name for one in self.engine.list(messages_prefix(drop))])

    def in_use_or(self, do: Callable[..., object], *args: object) -> bool:
        """Whether it was done, and not refused for a lock that could not be given back yet."""
        try:
            do(*args)
        except Refused as refusal:
            self.assertEqual(b"IN-USE", refusal.code)
            return False
        return True

    def removes_all_but(self, server: int, kept: str) -> None:
        """A session at one of the servers that removes all messages but one."""
        with StrictClient(self.servers[server].port) as client:
            client.login()
            for number, uid in client.uids().items():
                if uid != kept.encode():
                    client.dele(number)
            client.quit()

    def test_answer_lost_in_delivery(self) -> None:
        """A message that was kept, of which the answer is lost, is acknowledged, and there once."""
        self.at("PUT m", self.proxy.hang_answers)
        with Doing(self.writers[0].send) as sending:
            wait_until(
                lambda: self.readers[1].once() and self.readers[1].listed == 1, "it is there", pause=0.1
            )
            self.proxy.cut()
            self.proxy.go_on()
            self.assertTrue(sending.wait())
        self.look(1)

    def test_answer_lost_in_quit(self) -> None:
        """Messages that were removed, of which the answer is lost, are removed."""
        for writer in self.writers * 3:
            self.assertTrue(writer.send())
        self.proxy.when(b"POST /mail", self.proxy.hang_answers)
        with Doing(self.readers[0].once) as quitting:
            wait_until(lambda: self.proxy.done, "it is asked for")
            prefix = f"m/{Users(self.engines()).find(self.ledger.user).drop}"
            wait_until(lambda: len(self.engine.list(prefix)) == 4, "it is done", pause=0.1)
            self.proxy.cut()
            self.proxy.go_on()
            self.assertTrue(quitting.wait())
        self.assertEqual({3, 6}, self.ledger.deleted)
        self.look(4)


class HangingNetworkTests(_ProxiedCase):
    """A network that forwards nothing, and goes on."""

    def test_hangs(self) -> None:
        """All are told in bounded time, others are served, and service comes back without a restart."""
        for ledger in self.ledgers:
            sender = self.writer(ledger, 1)
            for _ in range(3):
                self.assertTrue(sender.send())
        leaving = Ledger("cid")
        self.assertTrue(self.writer(leaving, 1).send())
        with StrictClient(self.servers[0].port) as client, StrictClient(self.servers[0].port) as third:
            client.login()
            third.login(b"cid")
            third.dele(1)
            self.proxy.hang()
            with (
                Doing(lambda: self.assertRaises(Refused, third.quit)) as quitting,
                Doing(lambda: self.assertRaises((Refused, EOFError), client.retr, 1)) as retrieving,
                Doing(self.reader(self.ledgers[1], 0).once) as reading,
                Doing(self.writers[0].send) as sending,
            ):
                for _ in range(20):
                    began = time.monotonic()
                    with StrictClient(self.servers[0].port) as other:
                        other.capa()
                    # Nobody else's gateway hangs.
                    self.assertTrue(self.reader(self.ledgers[1], 1, share=0).once())
                    self.assertLess(time.monotonic() - began, AT_ONCE)
                began = time.monotonic()
                self.assertEqual(b"SYS/TEMP", getattr(retrieving.wait(), "code", b"SYS/TEMP"))
                self.assertEqual(b"SYS/TEMP", quitting.wait().code)
                self.assertLess(time.monotonic() - began, BOUNDED)
                self.assertFalse(reading.wait())
                self.assertFalse(sending.wait())
            self.assertEqual([1, 1], [ledger.troubles for ledger in self.ledgers])
            self.proxy.go_on()
            client.close()
        for ledger in self.ledgers:
            wait_until(self.reader(ledger, 0).once, "mail is read", pause=0.2)
            wait_until(self.writer(ledger, 0).send, "mail is taken", pause=0.2)
            self.assertTrue(self.reader(ledger, 0, share=0, again=True).once())
            self.assertEqual([], ledger.wrong)
            self.assertLess(ledger.slowest, BOUNDED)

    def test_under_load(self) -> None:
        """Whatever was under way when it hung, and comes late or never, nothing is lost or twice."""
        with self.load():
            self.works()
            self.proxy.hang_answers()
            self.more(lambda ledger: ledger.troubles, 1, "everybody is told")
            self.proxy.go_on()
            self.works()
        self.verdict()


class ServerTests(FailureCase):
    """Servers that are killed."""

    def test_killed_under_load(self) -> None:
        """Killed and started again by its name, a server gets its locks back at once, and nothing is lost."""
        self.servers[0].terminate()
        self.servers[0] = self.serve(node="first")
        with self.load():
            for _ in range(3):
                self.works()
                self.servers[0].kill()
                self.servers[0] = self.serve(node="first")
        self.verdict()

    def test_locks_of_the_dead(self) -> None:
        """Locks of servers that were killed, stopped or cut off are taken over by others, after 75 s.

        And of one that was started again by its name at once.  Nobody who comes back does any harm.
        """
        self.ledgers = [Ledger(user) for user in USERS]
        live = self.servers[1]
        proxy = Proxy(self.ceph.endpoints[0])
        self.addCleanup(proxy.close)
        stopped, killed = self.servers[0], self.serve()
        cut_off, named = self.serve(endpoint=proxy.endpoint), self.serve(node="named")
        holders = dict(zip(USERS, (stopped, killed, cut_off, named), strict=True))
        sessions, began = {}, {}
        for ledger, server in zip(self.ledgers, holders.values(), strict=True):
            for _ in range(3):
                self.assertTrue(self.writer(ledger, 1).send())
            client = sessions[ledger.user] = StrictClient(server.port)
            self.addCleanup(client.close)
            began[ledger.user] = time.monotonic()
            client.login(ledger.user.encode())
            client.dele(1)
        taken = time.monotonic()
        stopped.process.send_signal(signal.SIGSTOP)
        # Else it cannot be ended if this test fails.
        self.addCleanup(stopped.process.send_signal, signal.SIGCONT)
        killed.kill()
        proxy.hang()
        named.kill()
        named = self.serve(node="named")
        with logged_in(named.port, b"dan") as client:
            self.assertEqual(3, client.stat().messages)
        self.assertLess(time.monotonic() - taken, AT_ONCE)
        heirs: dict[str, StrictClient] = {}
        for at, user in enumerate(USERS[:3]):
            while user not in heirs:
                heir = StrictClient(live.port)
                self.addCleanup(heir.close)
                try:
                    heir.login(user.encode())
                    heirs[user] = heir
                except Refused as refusal:
                    self.assertEqual(b"IN-USE", refusal.code)
                    heir.close()
                    time.sleep(0.5)
                self.assertLess(time.monotonic() - taken, TTL + MARGIN + AT_ONCE)
            if at == 0:
                # S3 tells whole seconds.
                self.assertGreater(time.monotonic() - began[user], TTL + MARGIN - 2)
        for user in ("ann", "cid"):
            sessions[user].send(b"QUIT\r\n")
        stopped.process.send_signal(signal.SIGCONT)
        proxy.go_on()
        for user in USERS[:3]:
            self.assertRaises((Refused, EOFError, ConnectionError), sessions[user].status)
        for ledger in self.ledgers[:3]:
            heir = heirs[ledger.user]
            self.assertEqual([1, 2, 3], [*heir.uids()])
            self.assertEqual([1, 2, 3], [ledger.fetched(heir.uid(at), heir.retr(at)) for at in (1, 2, 3)])
            heir.quit()
            self.assertEqual([], ledger.wrong)
            wait_until(self.reader(ledger, 0).once, "who was stopped serves", pause=0.2)
