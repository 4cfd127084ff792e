"""How hard the properties are tried: a hundred examples each, or as many as ACTCD_EXAMPLES says (make fuzz-wire)."""

import os

from hypothesis import settings

if count := int(os.environ.get("ACTCD_EXAMPLES", "0")):
    settings.register_profile("long", max_examples=count)
    settings.load_profile("long")
