import argparse

import pytest

from panels.sampling import CONTROLS, DEFAULTS, PRESETS, add_flags, given_settings, settings_from, stop_text


def test_the_defaults_lie_on_the_sliders():
    for control in CONTROLS:
        assert control.minimum <= control.default <= control.maximum
        settings_from(**{control.name: control.minimum})
        settings_from(**{control.name: control.maximum})


def test_what_is_missing_takes_its_default():
    settings = settings_from(top_k=5)
    assert settings.top_k == 5
    assert settings.seed is None
    assert settings.temperature == DEFAULTS["temperature"]


def test_forms_send_whole_floats_and_digits():
    settings = settings_from(max_new_tokens=40.0, top_k="7", temperature="0.5", seed=" 9007199254740993 ")
    assert (settings.max_new_tokens, settings.top_k, settings.temperature) == (40, 7, 0.5)
    assert settings.seed == 9007199254740993


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_empty_seed_draws_one(empty):
    assert settings_from(seed=empty).seed is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": "hot"}, "temperature: expected a number, got 'hot'"),
        ({"top_k": 2.5}, "top_k: expected a whole number, got 2.5"),
        ({"top_k": float("inf")}, "top_k: expected a whole number, got inf"),
        ({"seed": "dice"}, "seed: expected a whole number, got 'dice'"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"min_p": True}, "min_p: expected a number, got True"),
        ({"max_new_tokens": None}, "max_new_tokens: expected a whole number, got None"),
        ({"temperature": -1}, "temperature: expected a number, 0 .greedy. or more, got -1"),
        ({"temperature": "nan"}, "temperature: expected a number"),
        ({"heat": 1}, "Unknown setting 'heat'. The settings are max_new_tokens, .*, seed"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        settings_from(**values)


def test_flags_and_settings_have_the_same_names():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    arguments = parser.parse_args(["--max-new-tokens", "3", "--typical-p", "0.9", "--stop", "!"])
    assert given_settings(arguments) == {"max_new_tokens": 3, "typical_p": 0.9, "stop": "!"}


def test_presets_lie_on_the_sliders_and_one_is_where_they_begin():
    values = {preset.name: preset.values for preset in PRESETS}
    assert [*values] == ["Greedy", "Careful", "Balanced", "Wild", "Neutral"]
    assert values["Balanced"] == {name: DEFAULTS[name] for name in DEFAULTS if name != "max_new_tokens"}
    assert values["Neutral"] == {
        "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "typical_p": 1, "repetition_penalty": 1
    }  # fmt: skip
    for control in CONTROLS[1:]:
        for preset in PRESETS:
            value = preset.values[control.name]
            assert control.minimum <= value <= control.maximum
            assert (value - control.minimum) / control.step == pytest.approx(
                round((value - control.minimum) / control.step)
            )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(None, ""), ("", ""), ("The end", "The end"), (r"\n\t", "\n\t"), (r"\\n", r"\n"), (r"\x\\", "\\x\\")],
)
def test_a_stop_text_is_typed_on_one_line(typed, meant):
    assert stop_text(typed) == meant


def test_a_stop_text_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"stop: expected text, got 3\."):
        stop_text(3)
