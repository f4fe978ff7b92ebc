"""The table of effects, and the words of an audit that come from it."""

import pytest

from contam.auditing.causes import CAUSES
from contam.auditing.what_helps import TREATS
from contam.data.worlds import WORLDS
from contam.remedies import REPAIRS
from contam.remedies import effects as table
from contam.remedies.effects import DATA, MOST, helpful, known_effects
from contam.training.changes import CHANGES


def test_the_table_has_every_world_change_and_repair():
    assert {row.world for row in known_effects()} == set(WORLDS)
    names = {row.remedy for row in known_effects()}
    unneeded = {name for name, change in CHANGES.items() if change.balances_domains}
    assert set(CHANGES) - unneeded - {"no change"} <= names
    assert {repair.title for repair in REPAIRS} <= names
    assert {row.remedy for row in known_effects() if row.kind == "data"} == set(DATA)


def test_a_sure_effect_has_an_interval_without_0_over_three_seeds_or_more():
    for row in known_effects():
        assert row.seeds >= 3 and row.ood_low <= row.ood_change <= row.ood_high
        assert row.effect != "helps" or row.ood_low > 0
        assert row.effect != "harms" or row.ood_high < 0


def test_causes_offer_what_helps_most_in_their_world_and_nothing_else():
    worlds = {world.cause: name for name, world in WORLDS.items()}
    offered = 0
    for cause in CAUSES:
        rows = [row for row in known_effects() if row.world == worlds.get(cause.name)]
        rows = [row for row in rows if row.kind != "repair" and row.ood_low > 0]
        rows.sort(key=lambda row: (row.effect == "helps", row.ood_change), reverse=True)
        assert [remedy.effect for remedy in cause.remedies] == [r.words for r in rows[:MOST]]
        assert [remedy.caveat for remedy in cause.remedies] == [r.caveat for r in rows[:MOST]]
        offered += len(cause.remedies)
    assert offered


def test_a_repair_treats_only_causes_in_whose_world_it_gains_accuracy():
    worlds = {spec.cause: world for world, spec in WORLDS.items() if spec.cause}
    for repair, cause in TREATS.items():
        for row in known_effects():
            if cause in worlds and row.remedy.startswith(repair) and row.world == worlds[cause]:
                assert row.ood_change > 0, (repair, cause)


def test_words_name_numbers_and_harm(monkeypatch: pytest.MonkeyPatch):
    row = known_effects()[0]._replace(
        remedy="stop gradient", kind="change", world="spurious", ood_change=12.34, ood_low=10.0,
        ood_high=14.66, id_change=-1.0, seeds=5, effect="helps",
    )  # fmt: skip
    harm = row._replace(world="healthy", ood_change=-3.0, effect="harms")
    monkeypatch.setattr(table, "known_effects", lambda: (row, harm))
    assert row.what.endswith("maps outside the object. This needs masks of the objects.")
    assert row.words.startswith("+12.3 points of OOD accuracy (+10.0 to +14.7), -1.0 of ID")
    assert row.caveat == "It lowers the OOD accuracy of other networks: healthy -3.0 points."
    assert harm.caveat == "It harms no other kind of network there, and also helps: spurious."
    assert helpful("background shortcut") == [row] and helpful("healthy") == helpful("") == []
