"""The names and numbers of NRI's protocol, as far as the daemon uses them.

Source: pkg/api/api.proto and pkg/net/multiplex of NRI.
"""

from __future__ import annotations

from typing import Final

PLUGIN_SERVICE: Final = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME_SERVICE: Final = "nri.pkg.api.v1alpha1.Runtime"

# The two logical connections of NRI's multiplexer.
TO_PLUGIN: Final = 1
TO_RUNTIME: Final = 2

# Events.
STOP_POD_SANDBOX: Final = 2
CREATE_CONTAINER: Final = 4
POST_START_CONTAINER: Final = 7
UPDATE_CONTAINER: Final = 8
STOP_CONTAINER: Final = 10
REMOVE_CONTAINER: Final = 11
