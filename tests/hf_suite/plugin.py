"""A pytest plugin (`-p tests.hf_suite.plugin`) by which transformers' test mixins can be imported in the suites.

No conftest.py: that would be read, and fetch them, whenever the project's own tests are collected.
"""

from tests.hf_suite.source import install_stand_ins

install_stand_ins()
