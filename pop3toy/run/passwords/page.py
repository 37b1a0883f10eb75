"""The HTML of the page: one form, no script, nothing from elsewhere.  Pure."""

from __future__ import annotations

from html import escape

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
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
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

_FORM = """{problem}<form method="post" action="">
<input type="hidden" name="token" value="{token}">
<label for="user">Name</label>
<input id="user" name="user" value="{user}" autocomplete="username" autocapitalize="none" spellcheck="false"
 required>
<label for="old">Password that you have now</label>
<input id="old" name="old" type="password" autocomplete="current-password" required>
<label for="new">New password</label>
<input id="new" name="new" type="password" autocomplete="new-password" minlength="{shortest}" required
 aria-describedby="hint">
<p class="hint" id="hint">{shortest} characters or more; several words that do not belong together are good.
</p>
<label for="again">New password once more</label>
<input id="again" name="again" type="password" autocomplete="new-password" required>
<button type="submit">Change the password</button>
</form>"""


def form(token: str, *, shortest: int, user: str = "", problem: str = "") -> bytes:
    """The page with the form.

    :param shortest: characters that a new password has at least.
    :param problem: what was wrong, a sentence for the user.
    """
    alert = f'<p role="alert" id="problem">{escape(problem)}</p>\n' if problem else ""
    body = _FORM.format(problem=alert, token=escape(token), user=escape(user), shortest=shortest)
    heading = "Change your mail password"
    title = f"Not changed - {heading}" if problem else heading
    return _PAGE.format(title=title, heading=heading, body=body).encode("utf-8", "replace")


def changed(user: str) -> bytes:
    """The page that says that it is done."""
    body = (
        f'<p role="status">The password of <strong>{escape(user)}</strong> is changed.</p>\n'
        "<p>Enter the new one in your mail programs. App passwords that you have go on to work.</p>"
    )
    return _PAGE.format(title="Password changed", heading="Password changed", body=body).encode(
        "utf-8", "replace"
    )
