"""What is hidden in commands and texts, and what stays readable."""

import pytest

from llmswap.runtime.redaction import redact, redact_command, secrets_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llama-server --api-key s3cret -m x.gguf", "llama-server --api-key *** -m x.gguf"),
        ("serve --api-key=s3cret --port 1", "serve --api-key=*** --port 1"),
        ("serve --api-key 's3 cret' x", "serve --api-key *** x"),
        ('HF_TOKEN="a b" run', "HF_TOKEN=*** run"),
        ("docker run -e OPENAI_API_KEY=abc img", "docker run -e OPENAI_API_KEY=*** img"),
        ("curl -H 'Authorization: Bearer abc.def' http://x", "curl -H 'Authorization: ***' http://x"),
        ("AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY=***"),
        ("DB_PASSWORD=x", "DB_PASSWORD=***"),
        ("the key is sk-abcdefghijklmnopqrst", "the key is ***"),
        ("login hf_abcdefghijklmnopqrst", "login ***"),
    ],
)
def test_secrets_are_hidden(text, expected):
    assert redact_command(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve m --max-tokens 512 --tokenizer t --port 8000",
        "llama-server --cache-type-k q8_0 -ngl 99 --keep 3",
        "run --api-key --port 1",
        "tokens=5 monkeys 3",
    ],
)
def test_ordinary_flags_stay_readable(text):
    assert redact_command(text) == text


def test_known_secrets_are_hidden_anywhere_but_very_short_ones_are_left():
    assert redact("a hunter22 b hunter22", ["hunter22", "b"]) == "a *** b ***"


def test_secrets_of_a_command_and_its_env_are_found_longest_first():
    assert secrets_in("x --api-key 'abcd' -p 1", ["HF_TOKEN=longer-one", "A=b"]) == ("longer-one", "abcd")


def test_long_words_cost_their_length_and_not_its_square():
    """Each part of this word looks like the end of a secret's name; it took minutes."""
    word = "a_key_" * 100_000
    assert redact_command(word) == word
    assert redact_command(f"{word}=x") == f"{word}=***"
