"""What every test runs under: graphs are built anew, and nothing is left in the user's cache folder."""

from __future__ import annotations

import os

os.environ["NETSENS_CACHE"] = "off"
