"""What all tests share: quiet TensorFlow, seeded randomness, small models."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same state of randomness."""
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
