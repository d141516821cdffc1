import pytest

from llmswap.config.command import split, without_comments


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \n\t ", []),
        ("a b\tc\nd", ["a", "b", "c", "d"]),
        ("a\\ b", ["a b"]),
        ("a\\\\b", ["a\\b"]),
        ("end\\", ["end"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ("a'b'\"c\"d", ["abcd"]),
        ("'' \"\"", ["", ""]),
        ("'\\n $x'", ["\\n $x"]),
        (r'"\$ \` \" \\ \n"', [r"$ ` \" \\ \n".replace(r"\"", '"').replace(r"\\", "\\")]),
        ('"a\\\nb"', ["a \nb"]),
        ("'open", ["open"]),
        ('"open\\', ["open "]),
        ("a\r\nb", ["a\r", "b"]),
        ("a | b > c; $HOME *", ["a", "|", "b", ">", "c;", "$HOME", "*"]),
        ("\u00a0x", ["\u00a0x"]),
    ],
)
def test_splits_like_the_reference(text, words):
    assert split(text) == words


def test_comment_lines_vanish_and_trailing_hashes_stay():
    assert split("# one\nserver --a # b\n   # two\n--c") == ["server", "--a", "#", "b", "--c"]


def test_a_backslash_at_the_end_of_a_line_continues_it():
    assert split("a \\\n  b\\  \nc") == ["a", "b", "c"]


def test_a_comment_after_a_continuation_still_vanishes():
    assert split("a \\\n# gone \\\nb") == ["a", "b"]


def test_text_without_comments_is_untouched():
    assert without_comments("a \\\n b") == "a \\\n b"
