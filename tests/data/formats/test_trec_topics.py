from io import BytesIO
from pathlib import Path
from typing import IO

from ir_datasets.formats.trec import TrecColonQueries, TrecQueries, TrecXmlQueries

from ranker.data.errors import Mistakes
from ranker.data.files import DataFile
from ranker.data.formats.trec_topics import read_topics

CLASSIC = """
<top>
<num> Number: 051
<title> Topic: Birds & songs

<desc> Description:
Which birds
sing?

<narr> Narrative:
Not <b>here</b>.
</top>

<TOP>
<NUM>302</NUM>
<TITLE></TITLE>
<desc> Description:
What is said of
canaries?
</TOP>
"""
XML = """<?xml version="1.0"?>
<topics task="COVIDSearch">
 <topic number="1">
  <query>birds &amp; songs</query>
  <question>what do they sing</question>
 </topic>
 <!-- <topic number="9"><title>left out</title></topic> -->
 <topic number="02" type="faceted"><query>x</query><title>
   two
lines </title><subtopic number="1" type="nav">y</subtopic></topic>
 <topic number="3"> A patient of 45 years. </topic>
</topics>
"""


class Download:
    """What ir_datasets takes for a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def path(self, force: bool = True) -> str:
        return str(self._path)

    def stream(self) -> IO[bytes]:
        return BytesIO(self._path.read_bytes())


def topics(path: Path, text: str) -> tuple[dict[str, str], Mistakes]:
    path.write_text(text)
    mistakes = Mistakes(str(path))
    table = read_topics([DataFile(path.name, str(path))], mistakes)
    return dict(zip(table["query_id"].to_pylist(), table["text"].to_pylist(), strict=True)), mistakes


def test_classic_topics_give_their_title_or_their_description(tmp_path: Path) -> None:
    found, mistakes = topics(tmp_path / "topics.51-100", CLASSIC)
    assert found == {"051": "Birds & songs", "302": "What is said of canaries?"}
    assert mistakes.count == 0
    # ir_datasets knows lower case only, and wants every field.
    lower = CLASSIC[: CLASSIC.index("<TOP>")]
    found, _ = topics(tmp_path / "topics.51-100", lower)
    assert found == {q.query_id: q.title for q in TrecQueries(Download(tmp_path / "topics.51-100")).queries_iter()}


def test_topics_in_xml(tmp_path: Path) -> None:
    found, mistakes = topics(tmp_path / "topics.xml", XML)
    assert found == {"1": "birds & songs", "02": "two\nlines", "3": "A patient of 45 years."}
    assert mistakes.count == 0
    fields = {"title": "title", "query": "description", "question": "narrative"}
    oracle = list(TrecXmlQueries(Download(tmp_path / "topics.xml"), qtype_map=fields).queries_iter())
    assert [(q.query_id, (q.title or q.description or "").strip()) for q in oracle[:2]] == list(found.items())[:2]


def test_topics_in_lines(tmp_path: Path) -> None:
    assert topics(tmp_path / "topics.tsv", "qid\tquery\n01\tbirds: a\tb\n\n2\tx\n")[0] == {
        "01": "birds: a\tb",
        "2": "x",
    }
    found, _ = topics(tmp_path / "topics.txt", "20001:birds that: sing\n20002:x\n")
    assert found == {q.query_id: q.text for q in TrecColonQueries(Download(tmp_path / "topics.txt")).queries_iter()}


def test_every_broken_topic_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "topics.xml"
    found, mistakes = topics(
        path,
        '<topics>\n<topic number="1"><title>R&D</title></topic>\n<topic number="2">\n'
        '<topic number="3"><title> </title></topic>\n<topic><title>x</title></topic>\n'
        '<topic number="4"><title>good</title></topic>\n<topic number="4"><title>other</title></topic>\n'
        '<topic number="4"><title>good</title></topic></topics>\n',
    )
    assert found == {"4": "good"}
    assert mistakes.count == 5
    for part in (
        "line 2: the <topic> that begins here is not XML",
        "line 3: <topic> is not closed",
        "line 4: the text of query '3' is empty",
        "line 5: the query 'x' has no id",
        f"line 7: query '4' is 'other' here and 'good' at {path}, line 6",
    ):
        assert any(part in line for line in mistakes.found), part
    assert "no tab and no colon in 'birds'" in topics(tmp_path / "topics", "birds\n")[1].found[0]
    assert "is markup without <top> or <topic" in topics(tmp_path / "topics", "<parameters/>")[1].found[0]


def test_json_is_no_line_with_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "topics.txt"
    path.write_text('{"_id": "1", "text": "who sings"}\n')
    mistakes = Mistakes("here")
    assert read_topics([DataFile(path.name, str(path))], mistakes).num_rows == 0
    assert "is JSON" in mistakes.found[0]
