"""transformers' test mixins become importable before the suites are read."""

from tests.hf_suite.source import install_stand_ins

install_stand_ins()
