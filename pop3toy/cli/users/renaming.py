"""``pop3toy user rename``: the account first, while the mailbox is held, and then the mailbox.

The account says from which name it comes until the mailbox has come too, so that the same command ends
what a crash has cut short.
"""

from __future__ import annotations

import os
from functools import partial
from typing import cast

from ...auth.accounts import admin
from ...auth.accounts.passwd_file import RENAMED_FROM, check_name
from ...errors import InUse, StoreTrouble
from ...interfaces import IMailboxRenaming, IStoreAdmin
from ..options import Failed
from .mistakes import canonical_name

__all__ = ["rename"]


def rename(accounts: admin.Where, mailboxes: IStoreAdmin | None, name: str, new: str) -> bool:
    """Rename a user, with the mailbox if there is one.

    :param mailboxes: of the store; ``None`` leaves the mailbox as it is.
    :return: whether a mailbox was renamed.
    :raises Failed: if that cannot be.
    :raises ValueError: for names that cannot be; ``OSError`` and ``StoreTrouble`` for other trouble.
    """
    check_name(new)
    known = admin.by_name(accounts).get(new)
    resumed = known is not None and known.settings.get(RENAMED_FROM) == name
    if not resumed:
        name = canonical_name(accounts, name)
        if name == new:
            raise ValueError(f"the user is called {new} already")
        if known is not None:
            raise admin.AccountExists(f"there is a user {new} already")
    step = partial(_rename_account, accounts, name, new)
    moves = False
    if mailboxes is None:
        step()
    elif not IMailboxRenaming.providedBy(mailboxes):
        raise Failed(
            "this store cannot rename mailboxes; --no-mailbox renames the account alone", os.EX_UNAVAILABLE
        )
    elif mailboxes.exists(name):
        moves = True
        try:
            cast(IMailboxRenaming, mailboxes).rename(name, new, step)
        except InUse as error:
            text = f"[{error.code}] {name}: {error.text}; nothing was renamed"
            raise Failed(text, os.EX_TEMPFAIL) from None
        except BaseException:
            # If the account has its new name already: mail and account belong together.
            renamed = admin.by_name(accounts).get(new)
            if not resumed and renamed is not None and renamed.settings.get(RENAMED_FROM) == name:
                admin.rename_back(accounts, name, new)
            raise
    elif not resumed and mailboxes.exists(new):
        raise StoreTrouble(detail=f"there is a mailbox of {new!r} already, and none of {name!r}")
    else:
        step()
    admin.rename_finished(accounts, new)
    return moves


def _rename_account(accounts: admin.Where, name: str, new: str) -> None:
    try:
        admin.rename_user(accounts, name, new)
    except (admin.NoSuchAccount, admin.AccountExists):
        # Unless that was done before a crash.
        known = admin.by_name(accounts).get(new)
        if known is None or known.settings.get(RENAMED_FROM) != name:
            raise
