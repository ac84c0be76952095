import pytest

from iqakit.adapters.settings import LinearConfig, TsnConfig
from iqakit.errors import ConfigurationError


def test_recipe_fills_what_is_not_given() -> None:
    resolved = TsnConfig(recipe="published-b", epochs=2).resolved()
    assert (resolved.learning_rate, resolved.warmup_epochs, resolved.weight_decay) == (1e-3, 3, 5e-4)
    assert resolved.epochs == 2
    assert resolved.pairs == "sampled"


def test_published_recipes_are_as_released() -> None:
    a, b = TsnConfig(recipe="published-a").resolved(), TsnConfig(recipe="published-b").resolved()
    assert (a.learning_rate, a.warmup_epochs, a.epochs, a.step_epochs) == (2e-4, 4, 8, 4)
    assert (b.learning_rate, b.warmup_epochs, b.epochs, b.step_epochs) == (1e-3, 3, 6, 6)
    for config in (a, b):
        assert (config.warmup_batch_size, config.batch_size, config.weight_decay) == (128, 32, 5e-4)
        assert (config.features, config.head_start, config.crop, config.flip) == ("embedding", "shared", 384, True)
        assert config.update_statistics == "first-epoch"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "best"}, "recipe must be one of default, published-a, published-b, but it is 'best'"),
        ({"batch_size": 1}, "batch_size must be at least 2, but it is 1"),
        ({"epochs": -1}, "epochs must be at least 0, but it is -1"),
        ({"crop": 8}, "crop must be at least 32, but it is 8"),
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
