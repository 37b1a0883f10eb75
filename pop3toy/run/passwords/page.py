"""The HTML of the page: one form, no script, nothing from elsewhere, in the reader's language.  Pure."""

from __future__ import annotations

from html import escape

from ...observe.explain.explanation import N_, Say

__all__ = ["HEADERS", "changed", "form"]

#: With every answer.  ``style-src`` is for the few lines in the page itself.
HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    # "origin" and not "no-referrer": with that, browsers send "Origin: null" with the form.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
    ("Vary", "Accept-Language"),
)

_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1.05rem/1.5 system-ui, sans-serif; }}
main {{ max-width: 26rem; margin: 2rem auto; padding: 0 1rem; }}
label {{ display: block; margin-top: 1rem; font-weight: 600; }}
input {{ box-sizing: border-box; width: 100%; font: inherit; padding: .5rem; }}
button {{ font: inherit; margin-top: 1.5rem; padding: .5rem 1.5rem; }}
.hint {{ margin: .25rem 0 0; }}
[role=alert] {{ border-left: .4rem solid #b00020; padding: .25rem .75rem; }}
</style>
</head>
<body>
<main>
<h1>{heading}</h1>
{body}
</main>
</body>
</html>
"""

_FORM = """{alert}<form method="post" action="">
<input type="hidden" name="token" value="{token}">
<label for="user">{name}</label>
<input id="user" name="user" value="{user}" autocomplete="username" autocapitalize="none" spellcheck="false"
 required>
<label for="old">{old}</label>
<input id="old" name="old" type="password" autocomplete="current-password" required>
<label for="new">{new}</label>
<input id="new" name="new" type="password" autocomplete="new-password" minlength="{shortest}" required
 aria-describedby="hint">
<p class="hint" id="hint">{hint}</p>
<label for="again">{again}</label>
<input id="again" name="again" type="password" autocomplete="new-password" required>
<button type="submit">{button}</button>
</form>"""


def form(say: Say, language: str, token: str, *, shortest: int, user: str = "", problem: str = "") -> bytes:
    """The page with the form.

    :param say: says texts in this language.
    :param shortest: characters that a new password has at least.
    :param problem: what was wrong, a sentence for the user.
    """
    hint = N_("{shortest} characters or more; several words that do not belong together are good.")
    body = _FORM.format(
        alert=f'<p role="alert" id="problem">{escape(problem)}</p>\n' if problem else "",
        token=escape(token),
        user=escape(user),
        shortest=shortest,
        name=escape(say(N_("Name"))),
        old=escape(say(N_("Password that you have now"))),
        new=escape(say(N_("New password"))),
        hint=escape(say(hint, shortest=shortest)),
        again=escape(say(N_("New password once more"))),
        button=escape(say(N_("Change the password"))),
    )
    heading = say(N_("Change your mail password"))
    title = say(N_("Not changed - {heading}"), heading=heading) if problem else heading
    return _page(language, title, heading, body)


def changed(say: Say, language: str, user: str) -> bytes:
    """The page that says that it is done."""
    done = escape(say(N_("The password of {user} is changed."))).format(
        user=f"<strong>{escape(user)}</strong>"
    )
    next_ = say(N_("Enter the new one in your mail programs. App passwords that you have go on to work."))
    heading = say(N_("Password changed"))
    return _page(language, heading, heading, f'<p role="status">{done}</p>\n<p>{escape(next_)}</p>')


def _page(language: str, title: str, heading: str, body: str) -> bytes:
    page = _PAGE.format(language=language, title=escape(title), heading=escape(heading), body=body)
    return page.encode("utf-8", "replace")
