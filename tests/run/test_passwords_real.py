"""A real server whose users change their passwords, log in with app passwords, and run out of room."""

from __future__ import annotations

import base64
import re
import shutil
import smtplib
import subprocess
from pathlib import Path

from scramp import ScramClient
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy.auth.accounts.admin import add_user, list_users, set_setting
from pop3toy.auth.app_passwords import admin as app_passwords

from ..browsing import the_browser
from ..corpus import make_maildir
from ..realserver import RealServer, ServerDied, wait_until
from ..strictclient import StrictClient

OLD, NEW = "old password", "a new password"
PAGE = "password page"


class PasswordPageTests(SynchronousTestCase):
    """``--password-port``."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.accounts = self.root / "accounts"
        for user in ("ann", "bob"):
            add_user(self.accounts, user, OLD, scheme="SCRAM-SHA-256")
            make_maildir(self.root / "mail" / user)
        self.options = ["--accounts", str(self.accounts), "--maildir", f"{self.root}/mail/{{user}}"]

    def fits(self, user: str, password: str) -> bool:
        """Whether this is the user's main password."""
        return list_users(self.accounts).by_name[user].password.verify(password.encode())

    def test_browser(self) -> None:
        """A browser without scripts fills the form in, is told what is wrong, and then that it is done."""
        browser = the_browser()
        with RealServer(*self.options, "--password-port=0") as server:
            browser.open(f"http://localhost:{server.port_for(PAGE)}/")
            self.assertEqual([], browser.all("script"))
            for label in browser.all("label"):
                self.assertTrue(browser.one(f"#{label.get_attribute('for')}").is_displayed())

            def fill(old: str, new: str, again: str) -> None:
                for name, text in (("user", "ann"), ("old", old), ("new", new), ("again", again)):
                    browser.one(f"#{name}").clear()
                    browser.one(f"#{name}").send_keys(text)
                browser.one("button").click()

            fill("wrong", NEW, NEW)
            wait_until(lambda: "is wrong" in browser.text("main"), "it is refused")
            self.assertEqual("", browser.one("#old").get_attribute("value"))
            fill(OLD, NEW, f"{NEW}!")
            wait_until(lambda: "both times" in browser.text("main"), "it is refused again")
            self.assertTrue(self.fits("ann", OLD))
            fill(OLD, NEW, NEW)
            wait_until(lambda: "is changed" in browser.text("main"), "it is done")
            self.assertTrue(self.fits("ann", NEW))
            self.assertNotIn("password=", browser.run("return location.href"))
            with StrictClient(server.port) as client:
                client.login(b"ann", NEW.encode())
            log = server.log
        self.assertIn("'ann' has changed the password", log)
        for secret in (OLD, NEW):
            self.assertNotIn(secret, log)

    def test_language(self) -> None:
        """A browser that likes Italian better than English has the page and its refusals in Italian."""
        browser = the_browser()
        browser.command("Network.enable")
        headers = "Network.setExtraHTTPHeaders"
        browser.command(headers, headers={"Accept-Language": "de, it-IT;q=0.9, en;q=0.5"})
        self.addCleanup(browser.command, headers, headers={})
        with RealServer(*self.options, "--password-port=0") as server:
            browser.open(f"http://localhost:{server.port_for(PAGE)}/")
            self.assertEqual("it", browser.one("html").get_attribute("lang"))
            self.assertEqual("Cambiare la password della posta", browser.text("h1"))
            for name, text in (("user", "ann"), ("old", "wrong"), ("new", NEW), ("again", NEW)):
                browser.one(f"#{name}").send_keys(text)
            browser.one("button").click()
            wait_until(lambda: "sbagliata" in browser.text("main"), "it is refused")
            for name, text in (("old", OLD), ("new", NEW), ("again", NEW)):
                browser.one(f"#{name}").send_keys(text)
            browser.one("button").click()
            wait_until(lambda: "La password di ann è cambiata." in browser.text("main"), "it is done")
        self.assertTrue(self.fits("ann", NEW))

    def curl(self, url: str, *words: str) -> tuple[int, str]:
        """What curl gets: the status and the page."""
        if shutil.which("curl") is None:
            raise SkipTest("curl is not installed")
        jar = str(self.root / "jar")
        command = ["curl", "-sk", "-b", jar, "-c", jar, "-w", "\n%{http_code}", *words, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        page, _, code = done.stdout.rpartition("\n")
        return int(code), page

    def test_curl(self) -> None:
        """Over TLS, with workers: what is not the form's own is refused, and guessing is slow."""
        with RealServer(*self.options, "--password-port=0", "--self-signed", "--workers=2") as server:
            url = f"https://localhost:{server.port_for(f'{PAGE} over TLS')}/"
            fields = {"user": "bob", "old": OLD, "new": NEW, "again": NEW}

            def post(token: str, *words: str, **other: str) -> int:
                fields_of_form = {"token": token, **fields, **other}
                pairs = (f"{name}={text}" for name, text in fields_of_form.items())
                said = [word for pair in pairs for word in ("--data-urlencode", pair)]
                return self.curl(url, *said, *words)[0]

            self.assertEqual(403, post("0" * 32))
            found = re.search(r'name="token" value="([0-9a-f]{32})"', self.curl(url)[1])
            assert found
            self.assertIn("__Host-", (self.root / "jar").read_text())
            for header in ("Origin: https://example.org", "Sec-Fetch-Site: cross-site", "Origin: null"):
                self.assertEqual(403, post(found[1], "-H", header))
            self.assertEqual(403, post("0" * 32))
            self.assertEqual(400, post(found[1], new="short", again="short"))
            self.assertEqual(413, post(found[1], new="x" * 9000))
            app = app_passwords.add(self.accounts, "bob", "phone")
            self.assertEqual(403, post(found[1], old=app))
            set_setting(self.accounts, "bob", "nologin", "y")
            self.assertEqual(403, post(found[1]))
            self.assertTrue(self.fits("bob", OLD))
            set_setting(self.accounts, "ann", "app-passwords-only", "y")
            self.assertEqual(200, post(found[1], user="Ann"))
            self.assertTrue(self.fits("ann", NEW))

    def test_needs_tls(self) -> None:
        """On a network there is no page without TLS."""
        for words in (["--password-port=0", "--interface=0.0.0.0"], ["--password-listen=tcp:0"]):
            with self.assertRaisesRegex(ServerDied, "certificate"), RealServer(*self.options, *words):
                pass

    def test_app_password(self) -> None:
        """USER and PASS, PLAIN and SCRAM take an app password, and its use is written down."""
        app = app_passwords.add(self.accounts, "ann", "phone")
        with RealServer(*self.options) as server:
            with StrictClient(server.port) as client:
                client.login(b"ann", app.encode())
            plain = base64.b64encode(b"\0ann\0" + app.encode())
            with StrictClient(server.port) as client:
                client.command(b"AUTH PLAIN " + plain)
            for password in (app, OLD):
                scram = ScramClient(["SCRAM-SHA-256"], "ann", password)
                with StrictClient(server.port) as client:
                    client.send(
                        b"AUTH SCRAM-SHA-256 " + base64.b64encode(scram.get_client_first().encode()) + b"\r\n"
                    )
                    scram.set_server_first(base64.b64decode(client.line()[2:]).decode())
                    client.send(base64.b64encode(scram.get_client_final().encode()) + b"\r\n")
                    scram.set_server_final(base64.b64decode(client.line()[2:]).decode())
                    client.command(b"")
            wait_until(lambda: bool(app_passwords.known(self.accounts, "ann")[0].used), "it is written down")

    def test_real_client(self) -> None:
        """curl fetches a list with an app password."""
        app = app_passwords.add(self.accounts, "ann", "phone")
        with RealServer(*self.options) as server:
            for auth in ("PLAIN", "LOGIN"):
                options = ["--login-options", f"AUTH={auth}", "-u", f"ann:{app}"]
                url = f"pop3://127.0.0.1:{server.port}/"
                subprocess.run(["curl", "-sS", *options, url], check=True, timeout=60, capture_output=True)

    def test_nearly_full(self) -> None:
        """The user gets one message, and the log a line; the mail itself comes."""
        set_setting(self.accounts, "ann", "quota", "2000")
        with RealServer(*self.options, "--smtp-port=0", "--domain=example.org") as server:
            with smtplib.SMTP("127.0.0.1", server.port_for("SMTP"), timeout=60) as client:
                for text in ("x" * 20, "y" * 400, "z" * 700, "z" * 10):
                    lines = "\r\n".join(re.findall(".{1,70}", text))
                    client.sendmail("eve@example.net", ["ann@example.org"], f"Subject: x\r\n\r\n{lines}\r\n")
            wait_until(lambda: len(self.new("ann")) == 5, "the warning comes")
            log = server.log
        [warning] = [text for text in self.new("ann") if "Auto-Submitted: auto-generated" in text]
        self.assertIn("From: postmaster@example.org", warning)
        self.assertRegex(warning, r"Subject: Your mailbox is 9\d % full")
        self.assertEqual(1, log.count("% full"))

    def new(self, user: str) -> list[str]:
        """The messages of a user."""
        return [file.read_text() for file in (self.root / "mail" / user / "new").iterdir()]
