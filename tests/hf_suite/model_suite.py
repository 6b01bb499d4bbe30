"""transformers' common model tests on our models and, as the peers, on Llama and GPT-2. Run by `make hf-suite`.

Not collected by `make test`: it needs the network once, and minutes.
"""

import unittest
from typing import Any

from transformers_tests.test_configuration_common import ConfigTester  # pyright: ignore[reportMissingImports]
from transformers_tests.test_modeling_common import (  # pyright: ignore[reportMissingImports]
    GenerationTesterMixin,
    ModelTesterMixin,
)
from transformers_tests.test_training_mixin import TrainingTesterMixin  # pyright: ignore[reportMissingImports]

from modeling import ScratchGPTForMaskedLM
from tests.hf_suite.model_tester import ClassicTester, GPT2Tester, LlamaTester, MaskedTester, ModernTester


class Suite(ModelTesterMixin, TrainingTesterMixin):
    """The tests of both mixins, and the config's."""

    tester: Any = None
    model_tester: Any = None  # pyright: ignore[reportIncompatibleMethodOverride]
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        self.model_tester = self.tester()
        self.config_tester = ConfigTester(self, config_class=self.tester.config_class, **self.tester.width)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class CausalSuite(Suite, GenerationTesterMixin):
    """Base model and causal head. The generation mixin is a stand-in: `test_transformers_generate.py` has our own."""

    def setUp(self) -> None:
        super().setUp()
        self.all_model_classes = (self.tester.base_model_class, self.tester.causal_lm_class)


class ClassicTest(CausalSuite, unittest.TestCase):
    """Learned positions: there are no rotary ones to scale, as there are none in GPT-2."""

    tester = ClassicTester

    def _skip(self) -> None:
        self.skipTest("Learned positions: there are no rotary ones to scale")

    test_model_rope_scaling_from_config_0_linear = _skip
    test_model_rope_scaling_from_config_1_dynamic = _skip
    test_model_rope_scaling_from_config_2_yarn = _skip
    test_model_rope_scaling_frequencies = _skip


class ModernTest(CausalSuite, unittest.TestCase):
    tester = ModernTester


class LlamaTest(CausalSuite, unittest.TestCase):
    tester = LlamaTester


class GPT2Test(CausalSuite, unittest.TestCase):
    tester = GPT2Tester


class MaskedTest(Suite, unittest.TestCase):
    tester = MaskedTester
    all_model_classes = (ScratchGPTForMaskedLM,)
