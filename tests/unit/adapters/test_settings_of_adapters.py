import pytest

from iqakit.adapters import iqakit_adapters
from iqakit.adapters.settings import LinearConfig, TsnConfig
from iqakit.contracts import AdapterEntry
from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.plugins.settings import make_config


def tsn() -> AdapterEntry:
    return next(entry for entry in iqakit_adapters() if entry.name == "tsn")


def test_preset_is_gone_over_by_what_is_given() -> None:
    config = make_config(tsn(), {"epochs": "2"}, "paper-b")
    assert (config.learning_rate, config.warmup_epochs, config.weight_decay) == (1e-3, 3, 5e-4)
    assert (config.epochs, config.pairs) == (2, "sampled")


def test_published_presets_are_as_released() -> None:
    a, b = make_config(tsn(), {}, "paper-a"), make_config(tsn(), {}, "paper-b")
    assert (a.learning_rate, a.warmup_epochs, a.epochs, a.step_epochs) == (2e-4, 4, 8, 4)
    assert (b.learning_rate, b.warmup_epochs, b.epochs, b.step_epochs) == (1e-3, 3, 6, 6)
    for config in (a, b):
        assert (config.warmup_batch_size, config.batch_size, config.weight_decay) == (128, 32, 5e-4)
        assert (config.features, config.head_start, config.crop, config.flip) == ("embedding", "shared", 384, True)
        assert (config.update_statistics, config.loss, config.target) == ("first-epoch", "fidelity", "binary")
        assert (config.refit, config.averaging, config.anchor) == (0, 0, 0)


def test_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"'paper-c'.*paper-a"):
        make_config(tsn(), {}, "paper-c")
    linear = next(entry for entry in iqakit_adapters() if entry.name == "linear")
    with pytest.raises(ConfigurationError, match="linear has no presets, but 'paper-a' was asked for; leave --preset out"):
        make_config(linear, {}, "paper-a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2, but it is 1"),
        ({"epochs": -1}, "epochs must be at least 0, but it is -1"),
        ({"crop": 8}, "crop must be at least 32, or 0 for whole images, but it is 8"),
        ({"crop": 0, "update_statistics": "always"}, "with crop=0 set update_statistics=never, not always"),
        ({"refit": 1.5}, "refit must be between 0 and 1, but it is 1.5"),
        ({"regression_weight": -1.0}, "regression_weight must be at least 0, but it is -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0, but it is nan"),
        ({"averaging": 1.0}, "averaging must be at least 0 and below 1, but it is 1.0"),
    ],
)
def test_wrong_settings_are_said(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        TsnConfig(**settings)


def test_penalty_must_be_positive() -> None:
    with pytest.raises(ConfigurationError, match="penalty must be above 0, but it is 0"):
        LinearConfig(penalty=0)
