"""Where a commit can be looked at: a template that can only become a web address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from clipq.errors import SettingsError

__all__ = ["CommitLink", "commit_link"]

_EXAMPLE = "for example https://example.org/team/models/commit/{sha}"
_PLACE = "{sha}"
_ALLOWED = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]*")  # RFC 3986 without quotes


@dataclass(frozen=True, slots=True)
class CommitLink:
    """A checked template: what stands before and after a commit's hash."""

    before: str
    after: str


def commit_link(template: str) -> CommitLink | None:
    """Check a template such as ``https://host/org/repo/commit/{sha}``; None for an empty one.

    Raises:
        SettingsError: no ``{sha}`` or several, not http or https, no host, a user name or password
            in it, or characters that a web address does not have.
    """
    template = template.strip()
    if not template:
        return None
    if template.count(_PLACE) != 1:
        raise SettingsError(
            f"the commit URL {_shown(template)} must contain {_PLACE} once",
            hint=f"{_PLACE} stands for the commit's hash, {_EXAMPLE}",
        )
    before, after = template.split(_PLACE)
    try:
        parts = urlsplit(before + "0" + after)
        host, user, _ = parts.hostname, parts.username, parts.port
    except ValueError as error:
        raise SettingsError(
            f"the commit URL {_shown(template)} is no web address: {error}", hint=_EXAMPLE
        ) from None
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError(
            f"the commit URL {_shown(template)} is not an address on the web",
            hint=f"it starts with https:// or http:// and names a host, {_EXAMPLE}",
        )
    if user is not None:
        raise SettingsError(
            f"the commit URL {_shown(template)} holds a user name or password",
            hint=f"everyone who opens the site would read it; leave it out, {_EXAMPLE}",
        )
    if not before.startswith(f"{parts.scheme}://{parts.netloc}/"):
        raise SettingsError(
            f"the commit URL {_shown(template)} has {_PLACE} in its host",
            hint=f"put it behind the host, {_EXAMPLE}",
        )
    if not (_ALLOWED.fullmatch(before) and _ALLOWED.fullmatch(after)):
        raise SettingsError(
            f"the commit URL {_shown(template)} has characters that no web address has",
            hint=f"letters, digits and -._~:/?#[]@!$&()*+,;=%, {_EXAMPLE}",
        )
    return CommitLink(before, after)


def _shown(template: str) -> str:
    """Return the template as a message may show it: one line, no password."""
    hidden = re.sub(r"//[^/@]*@", "//***@", template)
    return repr(hidden if len(hidden) <= 200 else hidden[:200] + "...")
