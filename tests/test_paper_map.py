"""The paper map is complete, each address exists, and the scanner notices what breaks it."""

import ast
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contam import paper
from contam.experiments import EXPERIMENTS, find
from contam.measures.published import published
from contam.paper import (
    CONTENTS,
    ITEMS,
    NOT_IN_CODE,
    PART_OF,
    PARTS,
    RESTATED,
    places,
    spelled,
    where,
)
from contam.paper.parts import Part
from contam.training.algorithms import ALGORITHMS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def package(tmp_path):
    """A package of one module, whose text the test gives."""

    def written(text: str) -> Path:
        folder = tmp_path / "toy"
        folder.mkdir(exist_ok=True)
        (folder / "module.py").write_text(text, encoding="utf-8")
        return folder

    return written


PRESETS = {f"contam run {one.name} {preset}" for one in EXPERIMENTS for preset in one.presets}
EVERY_PART = [(item, part) for item, parted in PARTS.items() for part in parted]


def exists(address: str) -> bool:
    """Whether a dotted name can be imported, a command names a preset, or a page is there."""
    if " " in address:
        command, _, only = address.partition(" --only ")
        return command in PRESETS and (not only or accepts(command.split()[2], only))
    if address.startswith("docs/"):
        return (ROOT / address).is_file()
    try:
        pkgutil.resolve_name(address)
    except (ImportError, AttributeError):
        return False
    return True


def accepts(experiment: str, only: str) -> bool:
    """Whether the config of an experiment can be restricted to a part of this name."""
    config = type(find(experiment).presets["smoke"])
    try:
        config.model_validate({"only": [only]})
    except ValueError:
        return False
    return True


def outdated(part: Part) -> bool:
    """Whether a part is listed as absent although the package has an algorithm of its name.

    "No experiment does this" is outdated, too: nobody edits the map when an experiment is added.
    """
    exists = {name.lower() for name in ALGORITHMS} & set(part.what.lower().split())
    return bool(part.absent and (exists or "no experiment" in part.absent))


def test_every_item_has_an_address_or_a_reason():
    for item in ITEMS:
        answers = [*places().get(item, ()), *PARTS.get(item, ()), *NOT_IN_CODE.get(item, "")]
        assert answers, item


def test_no_item_has_both_an_address_and_a_reason():
    assert not set(places()) & set(NOT_IN_CODE)
    assert not set(PARTS) & set(NOT_IN_CODE)


def test_items_without_an_address_have_parts():
    one_address = ("Eq.", "Def.", "Lemma", "Thm.")
    promised = {item for item in ITEMS if not item.startswith(one_address)}
    assert set(PARTS) == promised - set(NOT_IN_CODE)


@pytest.mark.parametrize(("item", "part"), EVERY_PART, ids=lambda one: str(one)[:60])
def test_every_part_exists_or_has_a_reason(item, part):
    assert bool(part.address) != bool(part.absent)
    assert len(part.absent.split()) != 1
    assert not part.address or exists(part.address)


@pytest.mark.parametrize(("item", "part"), EVERY_PART, ids=lambda one: str(one)[:60])
def test_no_part_is_absent_that_exists(item, part):
    assert not outdated(part)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part("baseline Fish", absent="it is not in the code"), True),
        (Part("baseline IB-ERM", absent="it is not in the code"), True),
        (Part("depth varied", absent="no experiment varies it"), True),
        (Part("baseline Fish", "contam.training.algorithms.fish.Fish"), False),
        (Part("baseline Trout", absent="it is not in the code"), False),
    ],
)
def test_an_outdated_absence_is_noticed(part, expected):
    assert outdated(part) == expected


@pytest.mark.parametrize(
    "address",
    [
        "contam.nothing",
        "contam.paper.where.more",
        "contam run dominoes none",
        "contam run dominoes laptop --only depth",
        "contam run phase_diagrams laptop --only nothing",
        "docs/none.md",
    ],
)
def test_an_address_that_does_not_exist_is_reported(address):
    assert not exists(address)


@pytest.mark.parametrize("table", range(1, 6))
def test_every_row_of_a_table_is_a_part(table):
    whats = [part.what for part in PARTS[f"Tab. {table}"]]
    for row in published(table):
        assert any(row in re.split(", ", what) for what in whats), row


def test_every_baseline_is_a_part():
    paper_says = "ERM IRM GroupDRO Mixup MLDG CORAL DANN SagNet ARM VREx RSC SelfReg IB-ERM IB-IRM"
    baselines = {p.what.split()[-1] for p in PARTS["App. E.4"] if p.what.startswith("baseline")}
    assert baselines == {*paper_says.split(), "Fish"}


@pytest.mark.parametrize(
    ("item", "panels"), [("Fig. 6", "abc"), ("Murali Fig. 7", "ab"), ("Fig. 3", "d")]
)
def test_panels_of_different_kinds_are_parts(item, panels):
    for panel in panels:
        assert any(part.what.startswith(f"({panel})") for part in PARTS[item])


def test_every_number_of_the_papers_is_an_item():
    def numbered(kind: str, *labels: str) -> set[str]:
        return {f"{kind} {label}" for label in labels}

    first = (
        numbered("Eq.", *map(str, range(1, 62)))
        | numbered("Fig.", *map(str, range(1, 16)))
        | numbered("Tab.", *map(str, range(1, 6)))
        | numbered("Thm.", "4.1", "4.2", "4.3", "4.4")
        | numbered("Def.", "3.1", "A.4", "A.5", "B.2")
        | numbered("Lemma", *(f"A.{n}" for n in (1, 2, 3, 6, 7, 8, 9)))
        | numbered("Lemma", "B.1", *(f"B.{n}" for n in range(3, 10)))
        | numbered("Lemma", *(f"C.{n}" for n in range(1, 4)), *(f"D.{n}" for n in range(1, 7)))
        | numbered("App.", *(f"E.{n}" for n in range(1, 5)), *(f"F.{n}" for n in range(1, 5)))
        | numbered("App.", "G.1", "G.2", "G.3")
        | numbered("Sec.", "6", "6.1")
    )
    second = (
        numbered("Murali Fig.", *map(str, range(1, 9)))
        | numbered("Murali Tab.", "1", "2")
        | numbered("Murali Claim", *map(str, range(1, 6)))
        | numbered("Murali Step", "1", "2", "3")
    )
    questions = numbered("Question", "1", "2", "3") | numbered("Check", "1", "2", "3")
    assert {item for item in ITEMS if re.search(r"\d", item)} == first | second | questions
    assert sum(len(chapter) for chapter in CONTENTS.values()) == len(ITEMS)


def test_equations_are_in_the_order_of_the_paper():
    numbers = [int(item.split()[1]) for item in ITEMS if item.startswith("Eq.")]
    assert numbers == list(range(1, 62))


def test_references_between_items_name_items():
    assert {*PART_OF, *PART_OF.values(), *RESTATED.values(), *NOT_IN_CODE} <= set(ITEMS)
    named = re.compile(r"(?:Eq\.|Def\.|Thm\.|Fig\.|Tab\.|App\.|Lemma) [A-G]?\.?\d+(?:\.\d+)?")
    for reason in NOT_IN_CODE.values():
        assert set(named.findall(reason)) <= set(ITEMS)


def test_sources_of_claims_name_items_of_the_paper():
    for path in sorted((paper.PACKAGE / "experiments").rglob("*.py")):
        for keyword in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match keyword:
                case ast.keyword(arg="source", value=ast.Constant(value=str() as source)):
                    assert source == "ours" or isinstance(paper.cited(source), list), path


def test_items_that_an_experiment_reproduces_have_their_address_there():
    addresses = places()
    for experiment in EXPERIMENTS:
        for item in experiment.reproduces:
            assert item in ITEMS
            if item.startswith(("Fig.", "Tab.")):
                assert any(
                    place.path.startswith(f"contam/experiments/{experiment.name}")
                    for place in addresses[item]
                )


def test_files_named_in_reasons_exist():
    for item, reason in NOT_IN_CODE.items():
        for path in re.findall(r"\S+\.py", reason):
            assert (ROOT / path).is_file(), f"{item}: {path}"


def test_the_page_of_the_documentation_is_up_to_date():
    written = (ROOT / "docs" / "paper-map.md").read_text(encoding="utf-8")
    assert written == paper.markdown(), "run: python -m contam.paper > docs/paper-map.md"


def test_lookup_does_not_import_torch_and_is_fast():
    code = "import sys, contam.paper as p; p.where('Eq. 4'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    start = time.process_time()
    places()
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("asked", "item"),
    [
        ("Eq. 61", "Eq. 61"),
        ("eq 61", "Eq. 61"),
        ("Equation 61", "Eq. 61"),
        ("equation (61)", "Eq. 61"),
        ("(61)", "Eq. 61"),
        ("61", "Eq. 61"),
        ("Theorem 4.1", "Thm. 4.1"),
        ("thm. 4.1", "Thm. 4.1"),
        ("4.1", "Thm. 4.1"),
        ("Theorem B.1", "Thm. 4.1"),
        ("theorem c.4", "Thm. 4.4"),
        ("Lemma B.1", "Lemma B.1"),
        ("Corollary A.3", "Lemma A.3"),
        ("fig 8a", "Fig. 8"),
        ("Figure 8(b)", "Fig. 8"),
        ("Figs. 3a-c", "Fig. 3"),
        ("Table 5", "Tab. 5"),
        ("Definition A.4", "Def. A.4"),
        ("A.4", "Def. A.4"),
        ("Appendix F.3", "App. F.3"),
        ("section F.3", "App. F.3"),
        ("Section 6.1", "Sec. 6.1"),
        ("conjecture", "Sec. 6.1"),
        ("Takeaway 2", "Sec. 6"),
        ("Murali Fig. 6", "Murali Fig. 6"),
        ("murali et al. (2023), Figure 7a", "Murali Fig. 7"),
        ("second paper table 2", "Murali Tab. 2"),
        ("Murali Prediction Depth", "Murali prediction depth"),
        ("open question 1", "Question 1"),
        ("next check 3", "Check 3"),
        ("  Eq.61 ", "Eq. 61"),
    ],
)
def test_spellings(asked, item):
    assert spelled(asked) == item


@pytest.mark.parametrize("item", ITEMS)
def test_every_item_has_an_answer(item):
    assert spelled(item) == item
    first, *rest = where(item)
    assert first == f"{item}: {ITEMS[item]}"
    assert rest
    answers = {f"  {part.answer}" for part in PARTS.get(item, ())}
    answers.add(f"  not in code: {NOT_IN_CODE.get(item)}")
    for line in rest:
        assert line in answers or (ROOT / "src" / line.split(":")[0].strip()).is_file()


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("Eq. 62", "Eq. 6"),
        ("Fig. 88", "Fig. 8"),
        ("Lemma 4.1", "Lemma D.1"),
        ("Murali Fig. 9", "Murali Fig. 8"),
        ("banana", "Eq. 61"),
    ],
)
def test_an_unknown_item_raises_with_the_nearest_name(asked, nearest):
    with pytest.raises(ValueError, match=f"no item '{asked}'.*{nearest}"):
        where(asked)


@pytest.mark.parametrize(
    ("source", "items"),
    [
        ("Eq. 61, App. F.3.", {"Eq. 61", "App. F.3"}),
        ("Thm. 4.1, Thm. 4.4.", {"Thm. 4.1", "Eq. 5", "Eq. 41", "Thm. 4.4"}),
        ("Figs. 3a-c.", {"Fig. 3"}),
        ("Figs. 3, 7 and 8(a).", {"Fig. 3", "Fig. 7", "Fig. 8"}),
        ("Eqs. 54-55.", {"Eq. 54", "Eq. 55"}),
        ("Lemmas A.6-A.8.", {"Lemma A.6", "Lemma A.7", "Lemma A.8", "Eq. 16", "Eq. 17"}),
        ("Thm. B.3.", {"Thm. 4.3", "Eq. 9", "Eq. 46"}),
        ("Def. 3.1,\n    Eq. 2.", {"Def. 3.1", "Eq. 2"}),
        ("Sec. 3.2, Eq. 3 in feature coordinates.", {"Eq. 3"}),
        ("Eq. 61; Morcos et al. (2018), Eq. 1.", {"Eq. 61"}),
        ("Krueger et al. (2021).", set()),
        ("ours, since Eq. 61 has no such term.", set()),
        ("Murali et al. (2023), Figs. 5 and 6.", {"Murali Fig. 5", "Murali Fig. 6"}),
        ("Eq. 61; Murali et al. (2023), Claim 4.", {"Eq. 61", "Murali Claim 4"}),
        ("ours; Murali et al. (2023), prediction depth.", {"Murali prediction depth"}),
        ("ours; Murali et al. (2023).", set()),
    ],
)
def test_forms_of_a_source_line(package, source, items):
    addresses = places(package(f'def f():\n    """What it is.\n\n    Source: {source}\n    """\n'))
    assert set(addresses) == items
    assert {place for homes in addresses.values() for place in homes} <= {("toy/module.py", "f", 1)}


def test_addresses_name_modules_classes_methods_and_attributes(package):
    addresses = places(
        package(
            '"""A module. Source: Eq. 1."""\n\n'
            'class C:\n    """A class. Source: Eq. 2."""\n\n'
            '    x: int = 0\n    """A field. Source: Eq. 3."""\n\n'
            '    def m(self):\n        """A method. Source: Eq. 4."""\n\n'
            'K = 1\n"""A constant. Source: Eq. 7."""\n'
        )
    )
    assert {item: (home.name, home.line) for item, (home,) in addresses.items()} == {
        "Eq. 1": ("", 1),
        "Eq. 2": ("C", 3),
        "Eq. 3": ("C.x", 6),
        "Eq. 4": ("C.m", 9),
        "Eq. 7": ("K", 12),
    }


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("Eq 61.", "'Eq 61.'"),
        ("Theorem 4.1.", "'Theorem 4.1.'"),
        ("Eq. 3, Figure 8.", "'Figure 8.'"),
        ("Eq. 62.", "no item 'Eq. 62'"),
        ("Sec. 9.", "no item 'Sec. 9'"),
        ("the appendix.", "'the appendix.'"),
        ("ours; Murali et al. (2023), Fig. 9.", "no item 'Murali Fig. 9'"),
    ],
)
def test_a_malformed_source_line_is_reported_with_file_and_line(package, source, fault):
    folder = package(f'X = 1\n\n\ndef f():\n    """What it is.\n\n    Source: {source}\n    """\n')
    with pytest.raises(ValueError, match=rf"toy/module\.py:7: .*{re.escape(fault)}"):
        places(folder)


@pytest.mark.parametrize("item", ["Eq. 4", "Def. 3.1", "Lemma A.1", "Thm. 4.1"])
def test_a_formula_or_statement_has_one_address(package, item):
    twice = (
        f'def f():\n    """One. Source: {item}."""\n\n\ndef g():\n    """Two. Source: {item}."""\n'
    )
    with pytest.raises(ValueError, match=rf"{item} has 2 addresses.*:1  f.*:5  g"):
        places(package(twice))


@pytest.mark.parametrize("item", ["Fig. 8", "Tab. 4", "App. F.1"])
def test_a_figure_table_or_section_may_have_several_parts(package, item):
    twice = (
        f'def f():\n    """One. Source: {item}."""\n\n\ndef g():\n    """Two. Source: {item}."""\n'
    )
    assert len(places(package(twice))[item]) == 2


def test_an_equation_has_the_address_of_its_statement_by_default(package):
    text = (
        'def f():\n    """Lemma. Source: Lemma D.2."""\n\n\n'
        'def g():\n    """Its variance. Source: Eq. 54."""\n'
    )
    addresses = places(package(text))
    assert {item: homes[0].name for item, homes in addresses.items()} == {
        "Lemma D.2": "f",
        "Eq. 54": "g",
        "Eq. 55": "f",
    }
