"""Configs of the modern family for tests: with a final projection that is not zero, models say something at once."""

from modeling import families

MODERN = families.MODERN | {"output_projection_init": "scaled"}
GROUPED = MODERN | {"num_key_value_heads": 2}
