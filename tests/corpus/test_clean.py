"""The book and nothing else, from every form of wrapping that old and new files show."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.clean import check_title, clean_gutenberg, clean_lines
from corpus.encodings import decode_bytes

BOOK = "THE TITLE\n\nby Somebody\n\n\nIt began. The heat produced by\nthe sun * * * was great.\n\n***\n\nTHE END\n"
HEADER = "The Project Gutenberg EBook of The Title, by Somebody\n\nTitle: The Title\n\nAuthor: Somebody\n\n"
LICENCE = "*** START: FULL LICENSE ***\n\nTHE FULL PROJECT GUTENBERG LICENSE\n\n*** END: FULL LICENSE ***\n"
SMALL_PRINT = (
    "{start}\nWhy is this here? You know: lawyers.\n\nThis PROJECT GUTENBERG-tm etext is provided AS-IS.\n{end}\n"
)
NAMED = "\n***** This file should be named 35-0.txt or 35-0.zip *****\n\n"

MARKERS = [
    (
        "*** START OF THIS PROJECT GUTENBERG EBOOK THE TITLE ***",
        "*** END OF THIS PROJECT GUTENBERG EBOOK THE TITLE ***",
    ),
    ("*** START OF THE PROJECT GUTENBERG EBOOK 35 ***", "*** END OF THE PROJECT GUTENBERG EBOOK 35 ***"),
    ("***START OF THE PROJECT GUTENBERG EBOOK THE TITLE***", "***END OF THE PROJECT GUTENBERG EBOOK THE TITLE***"),
    (
        "*** START OF THE PROJECT GUTENBERG EBOOK, THE TITLE ***",
        "*** END OF THE PROJECT GUTENBERG EBOOK, THE TITLE ***",
    ),
    ("*** START OF THIS PROJECT GUTENBERG ETEXT 20,000 X ***", "*** END OF THIS PROJECT GUTENBERG ETEXT 20,000 X ***"),
    (
        "*** START OF THE PROJECT GUTENBERG EBOOK X, BY VERNE***",
        "*** END OF THE PROJECT GUTENBERG EBOOK X, BY VERNE***",
    ),
    (
        "*** START OF THIS PROJECT GUTENBERG EBOOK\nTHE STRANGE CASE OF\nTHE TITLE ***",
        "*** END OF THIS PROJECT GUTENBERG EBOOK\nTHE STRANGE CASE OF\nTHE TITLE ***",
    ),
]
END_LINES = [
    "",
    "End of the Project Gutenberg EBook of The Title, by Somebody\n\n",
    "End of the Project Gutenberg EBook of The Title, by\nSomebody With A Long Name\n\n",
    "End of Project Gutenberg's The Title, by Somebody\n\n",
    "End of Project Gutenberg’s The Title, by Somebody\n\n",
]
SMALL_PRINTS = [
    (
        "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***",
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
    ),
    (
        "****START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START****",
        "**END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.08.01*END**",
    ),
    (
        "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN EBOOKS**START***",
        "*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*",
    ),
]
OLD_ENDS = [
    "End of The Project Gutenberg Etext of A TITLE\n",
    "End of this Project Gutenberg Etext of The Title\n",
    "End of The Project Gutenberg Etext of The Title, by Somebody\n",
    "[End of The Project Gutenberg Etext of The Title]\n",
    'End of Project Gutenberg etext of "The Title"\n',
    "End of the Project Gutenberg [Wiretap] Edition\n",
    "End of the Project Gutenberg eText The Title\n",
    "***End***\n",
    "",
]


@pytest.mark.parametrize("end_line", END_LINES)
@pytest.mark.parametrize(("start", "end"), MARKERS)
def test_markers(start: str, end: str, end_line: str) -> None:
    text = f"\ufeff{HEADER}{start}\n\n\n\n{BOOK}\n\n\n{end_line}{end}\n{NAMED}{LICENCE}"
    assert clean_gutenberg(text) == BOOK
    assert clean_gutenberg(text.replace("\n", "\r\n")) == BOOK


@pytest.mark.parametrize("end", OLD_ENDS)
@pytest.mark.parametrize("small_print", SMALL_PRINTS)
def test_small_print_on_top(small_print: tuple[str, str], end: str) -> None:
    notice = SMALL_PRINT.format(start=small_print[0], end=small_print[1])
    assert clean_gutenberg(f"{HEADER}{notice}\n\n{BOOK}\n\n{end}") == BOOK


@pytest.mark.parametrize("small_print", SMALL_PRINTS)
@pytest.mark.parametrize(("start", "end"), MARKERS)
def test_small_print_at_the_bottom_or_above_the_marker(start: str, end: str, small_print: tuple[str, str]) -> None:
    notice = SMALL_PRINT.format(start=small_print[0], end=small_print[1])
    assert clean_gutenberg(f"{HEADER}{start}\n\n{BOOK}\n{end}\n{NAMED}\n{notice}") == BOOK
    assert clean_gutenberg(f"{HEADER}{start}\n\n{BOOK}\n{notice}") == BOOK
    assert clean_gutenberg(f"{HEADER}{notice}\n{start}\n\n{BOOK}\n{end}\n") == BOOK


@pytest.mark.parametrize(
    "notice",
    [
        "Produced by Judith Boss and Charles Keller.  HTML version by Al Haines.",
        "Produced by Jeroen Hellingman and the Online Distributed\nProofreading Team at http://www.pgdp.net/ for\n"
        "Project Gutenberg (This file was produced from images generously\nmade available by The Internet Archive.)",
        "E-text prepared by Greg Weeks and\nthe Project Gutenberg Online Distributed Proofreading Team",
        "This Project Gutenberg Etext was prepared by Barry Haworth.",
        "This etext was done by a number of anonymous volunteers of the\nGutenberg Project, to whom we owe thanks.",
        "    This etext was produced from Space Science Fiction May 1953.\n    Extensive research did not uncover any",
        "Note: Project Gutenberg also has an HTML version of this\n      file.\n      (http://www.gutenberg.net/x.htm)",
        "[Redactor's Note: this is entered into\nProject Gutenberg for reference purposes only.]",
        "[Transcriber's Note: 'bread-fruit' has been substituted for\n'artocarpus' in this ed.]",
        "[Transcriber’s Note: one paragraph.\n\nAnother paragraph.\n\nThe last one.]",
        "  +-------------+\n  | Transcriber's note |\n  |             |\n  | Errors are kept. |\n  +-------------+",
        "Original Transcriber’s Notes:\n\n\n\nThis text is a combination of two others.",
        "The Project Gutenberg Etext of A TITLE",
        "[Portions of this header are copyright (C) 2001 by Michael S. Hart\nand may be reprinted when free.]",
        "From The PaperLess Readers Club, Houston (713) 977-9505 (BBS)\n             Voice/Fax (713) 977-1719",
        "Scanned and proofread by Somebody Else, somebody@example.com",
    ],
)
def test_notices_at_the_front_are_removed(notice: str) -> None:
    start, end = MARKERS[0]
    assert clean_gutenberg(f"{HEADER}{start}\n\n{notice}\n\n{BOOK}\n{end}\n") == BOOK
    title, rest = BOOK.split("\n\n", 1)
    assert clean_gutenberg(f"{HEADER}{start}\n\n{title}\n\n{notice}\n\n{rest}\n{end}\n") == BOOK


@pytest.mark.parametrize(
    "notes",
    [
        "Transcriber's Notes\n\nThe following errors have been corrected.\n\nOne, two and\n\nthree.",
        "******* Notes:\nOn the book\n>\n>I originally intended to correct it.\n\nBut it stands.",
        "  +------------------+\n  | Transcriber's Notes |\n  | plantinum | platinum |\n  +------------------+",
    ],
)
def test_notes_at_the_end_are_removed(notes: str) -> None:
    start, end = MARKERS[0]
    story = BOOK.replace("THE END", "Word after word. " * 200 + "\n\nTHE END")
    assert clean_gutenberg(f"{HEADER}{start}\n\n{story}\n\n{notes}\n\n{end}\n") == story


def test_the_middle_of_a_book_is_kept() -> None:
    start, end = MARKERS[0]
    middle = (
        "Produced by the heat, it rose.\n\n*    *    *    *    *\n\nThe pretext: Gutenberg printed\nthe Bible.\n\n"
        "End of the first part.\n\n*** START of the race ***\n\n*** END of it ***\n\n"
    )
    story = "".join(f"Paragraph {number}.\n\n" for number in range(20)) + middle + "THE END\n"
    assert clean_gutenberg(f"{HEADER}{start}\n\n{story}\n{end}\n{LICENCE}") == story


def test_a_book_without_blank_lines_survives_one_bad_line() -> None:
    start, end = MARKERS[0]
    story = "It began.\n" * 1000 + "He named Project Gutenberg.\n" + "It ended.\n" * 10
    assert clean_gutenberg(f"{start}\n\n{story}\n{end}\n") == story


def test_books_in_a_row() -> None:
    start, end = MARKERS[0]
    one = f"{HEADER}{start}\n\n{BOOK}\n{end}\n{NAMED}{LICENCE}"
    assert clean_gutenberg(one + one) == f"{BOOK}\n\n{BOOK}"


@given(st.text(st.characters(exclude_characters="\r\ufeff", exclude_categories=["Cs"])))
def test_a_text_without_markers_is_unchanged(text: str) -> None:
    assert clean_gutenberg(text) == text
    assert clean_gutenberg("\ufeff" + text.replace("\n", "\r\n")) == text


@pytest.mark.parametrize(
    "text",
    [
        "Produced by me.\n\nTranscriber's note: I wrote to http://gutenberg.org about an etext of Project Gutenberg.\n",
        "As he said, *** END OF THIS PROJECT GUTENBERG EBOOK X *** is a marker.\n",
    ],
)
def test_talk_of_gutenberg_is_no_marker(text: str) -> None:
    assert clean_gutenberg(text) == text


@pytest.mark.parametrize("filling", ["\n", "*", " ", "***\n", "-", "* ", "( \n", "Project Gutenberg ", "+|\n"])
def test_odd_files_take_no_longer_than_others(filling: str) -> None:
    text = "*** START OF THE PROJECT GUTENBERG EBOOK\n" + filling * (200_000 // len(filling))
    start = time.process_time()
    clean_gutenberg(text)
    with pytest.raises(ValueError, match="expected 'x', got"):
        check_title(text[5:], "x", "x")
    assert time.process_time() - start < 2


def test_a_long_box_of_notes_is_removed_and_what_only_begins_like_one_takes_no_time() -> None:
    start, end = MARKERS[0]
    box = "+----+\n| Transcriber's Notes: |\n" + ("| cell " * 6 + "|\n") * 120 + "+----+\n"
    assert clean_gutenberg(f"{HEADER}{start}\n\n{box}\n{BOOK}\n{end}\n") == BOOK
    story = f"{box}The end.\n"  # a longer paragraph than any note, and no box: it stays
    began = time.process_time()
    assert clean_gutenberg(f"{HEADER}{start}\n\n{story}\n{end}\n") == story
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("header", "title"),
    [
        ("Title: The Time Machine\n\nAuthor: H. G. Wells\n", "The Time Machine"),
        (
            "Title: Frankenstein\n       or The Modern Prometheus\n\nAuthor: X\n",
            "Frankenstein or The Modern Prometheus",
        ),
        ("\ufeffTitle: Moby Dick; or The Whale\r\nAuthor: X\r\n", "Moby Dick; or The Whale"),
        ("The Project Gutenberg Etext of The Metal Monster, by A. Merritt\n#2 in our series\n", "The Metal Monster"),
        ('The Project Gutenberg Etext of Burroughs\' "A Princess of Mars"\n*****This file\n', "A Princess of Mars"),
        ("*The SECOND Project Gutenberg Etext of Dr. Jekyll and Mr. Hyde.*\n", "Dr. Jekyll and Mr. Hyde"),
        ("Project Gutenberg Etext of Flatland: A Romance\n", "Flatland: A Romance"),
        ("Project Gutenberg’s When the Sleeper Wakes, by Herbert George Wells\n", "When the Sleeper Wakes"),
        ("The Project Gutenberg eBook, The Skylark of Space, by Edward Elmer Smith\n", "The Skylark of Space"),
    ],
)
def test_titles_in_headers(header: str, title: str) -> None:
    text = header + "\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\nTitle: other\n"
    with pytest.raises(ValueError, match=re.escape(f"expected 'another book', got {title!r}")):
        check_title(text, "another book", "book 1")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Moby Dick; or The Whale", "Moby-Dick; or, The Whale"),
        ("Frankenstein\n       or The Modern Prometheus", "Frankenstein; or, The Modern Prometheus"),
        ("Flatland\n  A Romance of Many Dimensions", "Flatland: A Romance of Many Dimensions"),
        ("The Strange Case Of Dr. Jekyll And\n  Mr. Hyde", "Strange case of Dr Jekyll & Mr Hyde"),
        ("Edison’s Conquest of Mars", "EDISON'S CONQUEST OF MARS"),
        ("Twenty Thousand Leagues under the Sea (slightly abridged)", "Twenty Thousand Leagues Under the Sea"),
        ("Vingt mille lieues: Première partie", "Vingt Mille Lieues"),
        ("War of the Worlds", "The War of the Worlds"),
    ],
)
def test_titles_that_agree(header: str, expected: str) -> None:
    check_title(f"Title: {header}\n\nAuthor: X\n", expected, "book 1")


def test_the_wrong_book_is_an_error_that_says_so() -> None:
    with pytest.raises(
        ValueError, match=r"book 105: expected 'The Time Machine', got 'Persuasion': .* correct the list"
    ):
        check_title("Title: Persuasion\n\nAuthor: Jane Austen\n", "The Time Machine", "book 105")
    with pytest.raises(ValueError, match=r"expected 'The Lost World', got 'The Lost World of Somebody'"):
        check_title("Title: The Lost World of Somebody\n", "The Lost World", "book 1")
    with pytest.raises(ValueError, match=r"book 1: expected 'X', got a text whose header states no title"):
        check_title("<html>Not found</html>", "X", "book 1")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  one\ttwo\u00a0 three  \n\n \nfour", "one two three\nfour\n"),
        ("yes .\nyes .\nno .\nyes .\n", "yes .\nno .\nyes .\n"),
        ("a\x00b\x1b[0m\u200bc\u00add\ufeff\x7f\x9f", "ab[0mcd\n"),
        ("one\ftwo\vthree\u2028four\u2029five\x85six", "one\ntwo\nthree\nfour\nfive\nsix\n"),
        ("Ä e\u0301 👩\u200d🚀 …", "Ä e\u0301 👩\u200d🚀 …\n"),
        (" \n\t\n", ""),
        ("", ""),
    ],
)
def test_lines_are_cleaned(text: str, cleaned: str) -> None:
    assert clean_lines(text)[0] == cleaned


def test_a_line_is_compared_with_the_end_of_the_piece_before() -> None:
    assert clean_lines("one\ntwo\n", "one") == ("two\n", "two")
    assert clean_lines("one\n", "one") == ("", "one")


@given(st.text(st.sampled_from("ab \n\t\f\x85\u00a0\x00\u200b")))
def test_clean_lines_stay_as_they_are(text: str) -> None:
    once, last = clean_lines(text)
    assert clean_lines(once) == (once, last)
    assert not set(once) & set("\t\f\x85\u00a0\x00\u200b")


DATA = Path(__file__).parents[2].parent / "shared" / "data"
# File, bytes after cleaning, first and last words: inspected manually, November 2026.
FILES = [
    ("scifi/edisons_conquest_of_mars_19141", 375165, "Edison's Conquest of Mars", "of Mars. (The End.)"),
    ("scifi/first_men_in_the_moon_1013", 379138, "THE FIRST MEN IN", "that has no end...."),
    (
        "scifi/flatland_201",
        203777,
        "Flatland: A Romance of",
        "made of | -----------------------------------------------------------------",
    ),
    ("scifi/frankenstein_84", 423273, "Frankenstein; or, the Modern", "in darkness and distance."),
    ("scifi/from_the_earth_to_the_moon_83", 542197, "FROM THE EARTH TO", "magistrate, were nominated beforehand!"),
    ("scifi/gods_of_mars_64", 452399, "[Frontispiece: The cold hollow", "only time will divulge."),
    ("scifi/hampdenshire_wonder_53028", 333294, "THE HAMPDENSHIRE WONDER BY", "qualities from her father."),
    ("scifi/invisible_man_5230", 273344, "The Invisible Man A", "them until he dies."),
    ("scifi/island_of_doctor_moreau_159", 242631, "THE ISLAND OF DOCTOR", "to the narrative form."),
    ("scifi/jekyll_and_hyde_43", 140695, "THE STRANGE CASE OF", "Jekyll to an end."),
    ("scifi/journey_to_the_centre_of_the_earth_18857", 486387, "A JOURNEY TO THE", "of the Voyage Extraordinaire"),
    ("scifi/last_man_18247", 1000724, "The Last Man Mary", "LAST MAN. THE END."),
    ("scifi/lost_world_139", 424036, "THE LOST WORLD I", "me across the table."),
    ("scifi/metal_monster_3479", 480329, "THE METAL MONSTER By", "upon us? Who knows?"),
    ("scifi/moby_dick_2701", 1234091, "MOBY-DICK; or, THE WHALE.", "only found another orphan."),
    ("scifi/mysterious_island_1268", 1128584, "THE MYSTERIOUS ISLAND by", "name of Captain Nemo."),
    ("scifi/poison_belt_126", 164736, "THE POISON BELT BY", 'a more worthy temple."'),
    ("scifi/princess_of_mars_62", 372181, "[Frontispiece: With my back", "I shall soon know."),
    ("scifi/scarlet_plague_21970", 112890, "THE SCARLET PLAGUE By", "the goats. THE END"),
    ("scifi/second_variety_32032", 88852, "[Illustration] SECOND VARIETY BY", "use against each other."),
    ("scifi/skylark_of_space_20869", 485177, "THE SKYLARK OF SPACE", 'Earth again?" THE END'),
    ("scifi/time_machine_35", 181456, "The Time Machine An", "the heart of man."),
    ("scifi/twenty_thousand_leagues_164", 589450, "TWENTY THOUSAND LEAGUES UNDER", "CAPTAIN NEMO AND MYSELF."),
    ("scifi/war_of_the_worlds_36", 340425, "by H. G. Wells", "me, among the dead."),
    ("scifi/warlord_of_mars_68", 312304, "Warlord of Mars By", "her upon the lips."),
    ("scifi/when_the_sleeper_wakes_775", 479216, "WHEN THE SLEEPER WAKES", "earth was very near."),
    (
        "old_markers/flatland_201_flat10a",
        203853,
        "Flatland: A Romance of",
        "made of | -----------------------------------------------------------------",
    ),
    ("old_markers/jekyll_and_hyde_43_hydea10", 141201, "THE STRANGE CASE OF", "Jekyll to an end."),
    ("old_markers/metal_monster_3479_memon10", 475830, "A. MERRITT THE METAL", "upon us? Who knows?"),
    ("old_markers/princess_of_mars_62_pmars10", 363969, "by Edgar Rice Burroughs", "I shall soon know."),
    ("old_markers/time_machine_35_timem11", 181671, "The Time Machine, by", "the heart of man."),
]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA} here")
@pytest.mark.parametrize(("file", "size", "first", "last"), FILES)
def test_real_files(file: str, size: int, first: str, last: str) -> None:
    book = clean_gutenberg(decode_bytes((DATA / f"{file}.txt").read_bytes(), file))
    assert " ".join(book[:500].split()).startswith(first)
    assert " ".join(book[-500:].split()).endswith(last)
    assert len(book.encode()) == size
    notice = re.compile(r"project gutenberg|\be-?text|transcriber|redactor|https?:|www\.|\w@\w+\.\w")
    assert [line for line in book.lower().split("\n") if notice.search(line)] == []
    assert "Produced by" not in book
    assert "\r" not in book
    assert "\ufeff" not in book
