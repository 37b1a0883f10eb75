"""docs/operating.rst: who types its commands has a mail server for friends."""

from __future__ import annotations

import shutil
import ssl
import sys
from pathlib import Path

from ..pages import CHECKOUT
from .followed import PASSWORD, FollowedCase
from .scratch_host import HOST

LINEAGE = f"/etc/letsencrypt/live/{HOST}"
HOOK = "/etc/letsencrypt/renewal-hooks/deploy/pop3toy"

#: What certbot does behind a renewal, by its own code.
CERTBOT = f"""/usr/bin/python3 -c '
from argparse import Namespace
from certbot.configuration import NamespaceConfig
from certbot._internal.hooks import renew_hook
config = NamespaceConfig(Namespace(
    config_dir="/etc/letsencrypt", work_dir="/tmp", logs_dir="/tmp", http01_port=80, https_port=443,
    domains=[], directory_hooks=True, dry_run=False, renew_hook=None, server="",
))
renew_hook(config, ["{HOST}"], "{LINEAGE}")
'"""

#: Logs in at each server of the file, and prints its port.
LOGINS = f"""
import poplib, smtplib, ssl
from xml.etree import ElementTree
context = ssl.create_default_context()
for one in ElementTree.parse("docs/examples/autoconfig/config-v1.1.xml").iter():
    if one.tag not in ("incomingServer", "outgoingServer"):
        continue
    place = one.findtext("hostname"), int(one.findtext("port"))
    encrypted, pop = one.findtext("socketType") == "SSL", one.get("type") == "pop3"
    name = one.findtext("username").replace("%EMAILADDRESS%", "ann@example.org")
    if pop:
        client = poplib.POP3_SSL(*place, context=context) if encrypted else poplib.POP3(*place)
        encrypted or client.stls(context)
        client.user(name)
        client.pass_("{PASSWORD}")
    else:
        client = smtplib.SMTP_SSL(*place, context=context) if encrypted else smtplib.SMTP(*place)
        encrypted or client.starttls(context=context)
        client.login(name, "{PASSWORD}")
    client.quit()
    print(place[1])
"""


class FriendsTests(FollowedCase):
    """Friends' mail in ten minutes."""

    def test_served(self) -> None:
        """Each command works, and in the end mail goes from one friend to another, and settings are found."""
        self.served()
        self.follow("Try it")
        self.host.wait_for(" delivered: ")
        found = self.follow("Thunderbird and others")
        self.assertIn(Path(CHECKOUT, "docs/examples/autoconfig/config-v1.1.xml").read_text(), found)
        log = self.host.log()
        self.assertNotIn("Traceback", log)
        self.assertNotIn("[warn", log)

    def test_certificate_renewed(self) -> None:
        """What certbot has renewed is what the next client sees; nobody but the server can read the key."""
        self.served()
        before = self.seen()
        renewed = self.host.certificate()
        self.host.run("RENEWED_LINEAGE=/etc/letsencrypt/live/other.example.org " + HOOK)
        self.assertEqual(self.seen(), before)
        self.host.run(CERTBOT if shutil.which("certbot") else f"RENEWED_LINEAGE={LINEAGE} {HOOK}")
        self.assertIn("reload pop3toy.service\n", self.host.run(f"cat {self.host.run_folder}/asked"))
        self.host.wait_for("certificates reloaded")
        self.assertEqual(self.seen(), renewed)
        modes = self.host.run("cd /etc/pop3toy && stat -c '%n %U %a' *.pem*")
        self.assertEqual(modes, "certificate.pem pop3toy 644\nkey.pem pop3toy 600\n")

    def seen(self) -> bytes:
        """The certificate that a client gets."""
        shown = self.host.run(f"openssl s_client -connect {HOST}:995 < /dev/null 2> /dev/null | openssl x509")
        return ssl.PEM_cert_to_DER_cert(shown)

    def test_settings(self) -> None:
        """Whoever takes any of the settings of the file for mail programs gets in with them."""
        self.served()
        found = self.host.run(f"{sys.executable} -", stdin=LOGINS)
        self.assertEqual(found.split(), ["995", "110", "465", "587"])
