"""The trend site: every case of a store over its runs, as static files that need no server."""

from clipq.history.site.commits import CommitLink, commit_link
from clipq.history.site.write import SiteFacts, write_site

__all__ = ["CommitLink", "SiteFacts", "commit_link", "write_site"]
