"""What is said of a report's power and clocks."""

from __future__ import annotations

import invented_reports as invented
import pytest

from musgd_cli.report.wording import about_power, remarks


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("board", "of the whole board"),
        ("module", "of the whole module"),
        ("rails", "which are not the whole board"),
        ("package", "of the processor alone"),
        ("gpu", "of the graphics card alone"),
        ("sensor", "which need not be the whole machine"),
        ("rack", "of the rack"),  # of a report that another version wrote
    ],
)
def test_what_is_no_whole_is_not_called_one(scope: str, words: str) -> None:
    made = invented.report(
        power_w=5.0, power_source="x", power_kind="measured", power_scope=scope, power_hz=None
    )
    assert about_power(made).endswith(words)
    assert ("of the whole" in about_power(made)) == (scope in ("board", "module"))


def test_what_held_the_clocks_back_is_named() -> None:
    reasons = ("clock capped", "soft temperature limit")
    (hot,) = remarks(invented.report(throttled=True, throttle_reasons=reasons))
    assert hot.flag == "throttled"
    assert hot.text.endswith("during the run: clock capped, soft temperature limit")
    # Reports with other reasons are told of together.
    assert hot.of_several is not None and "clock capped" not in hot.of_several
    (untold,) = remarks(invented.report(throttled=True))
    assert untold.text.endswith("during the run")


@pytest.mark.parametrize("throttled", [False, None])
def test_under_voltage_alone_is_told_as_such(throttled: bool | None) -> None:
    made = invented.report(throttled=throttled, throttle_reasons=("under-voltage",))
    (sagged,) = remarks(made)
    assert sagged.flag == "under-voltage"
    assert "was throttled" not in sagged.text
