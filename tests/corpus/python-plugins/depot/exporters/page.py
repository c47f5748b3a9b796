"""As a page, by Mako."""

import os
import tempfile
from pathlib import Path

from mako.lookup import TemplateLookup

TYPE = "text/html; charset=utf-8"

lookup = TemplateLookup(
    [str(Path(__file__).parent.parent / "templates")],
    module_directory=os.path.join(tempfile.gettempdir(), "depot-templates"),
    default_filters=["h"],
)


def write(listing: dict[str, str]) -> str:
    return lookup.get_template("listing.html").render_unicode(listing=listing)
