"""Answers about sound and pictures that come as events, with what they took."""

from tests.proxy.answers import AS_TOKENS, Answer, typed

MEDIA = (
    Answer(
        "a transcription",
        "/v1/audio/transcriptions",
        typed(
            *({"type": "transcript.text.delta", "delta": "w"} for _ in range(3)),
            {
                "type": "transcript.text.done",
                "text": "www",
                "usage": {"type": "tokens", **AS_TOKENS},
            },
        ),
        {"input_tokens": 11, "output_tokens": 5, "done": True},
    ),
    Answer(
        "speech as events",
        "/v1/audio/speech",
        typed(
            *({"type": "speech.audio.delta", "audio": "c28="} for _ in range(3)),
            {"type": "speech.audio.done", "usage": AS_TOKENS},
        ),
        {"input_tokens": 11, "output_tokens": 5, "done": True},
    ),
    Answer(
        "an image that comes in parts",
        "/v1/images/generations",
        typed(
            *({"type": "image_generation.partial_image", "b64_json": "c28=", "partial_image_index": n} for n in (0, 1)),
            {"type": "image_generation.completed", "b64_json": "c28=", "usage": AS_TOKENS},
        ),
        {"input_tokens": 11, "output_tokens": 5, "done": True},
    ),
)
