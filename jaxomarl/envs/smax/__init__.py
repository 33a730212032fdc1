"""StarCraft-like battles on the device: SMAX against its scripted enemy.

The names below are known without JaxMARL, whose import takes seconds.
"""

MAPS = (
    "3m", "5m_vs_6m", "8m", "2s3z", "3s5z_vs_3s6z", "27m_vs_30m",
    "smacv2_5_units", "smacv2_10_units",
)  # fmt: skip
"""The maps that papers use; SMAX has more, and each is a task."""
QUALITIES = ("scripted", "scripted-weakest", "scripted-two", "random")
"""The qualities of data that every map has."""
