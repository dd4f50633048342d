"""What every test runs under: graphs are built anew, nothing is left in the user's cache folder, and a slow machine fails no test that draws its examples."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ["NETSENS_CACHE"] = "off"
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
