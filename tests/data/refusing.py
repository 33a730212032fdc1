"""What every refusal has."""

import pytest

from jaxomarl.base import JaxomarlError


def refused(get, *words):
    """The message of the JaxomarlError that `get` raises; it has the four parts and all `words`."""
    with pytest.raises(JaxomarlError) as caught:
        get()
    text = str(caught.value)
    assert ": expected " in text and ", found " in text and not text.endswith("found"), text
    for word in words:
        assert str(word) in text, (word, text)
    return text
