"""What cannot be answered, as RFC 9457 says it."""

from __future__ import annotations

from http import HTTPStatus

__all__ = ["Problem"]


class Problem(Exception):
    """An answer that is an error.

    :param status: of HTTP.
    :param detail: one sentence.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail

    def as_dict(self) -> dict[str, object]:
        """The members of ``application/problem+json``."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
