"""Whose API a path belongs to, and what it asks for: the two things that decide how bytes read."""

from enum import StrEnum


class Vendor(StrEnum):
    """Whose error shape and usage fields apply."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Kind(StrEnum):
    """What a call asks for."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    IMAGES = "images"
    IMAGE_EDITS = "image_edits"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"
    SPEECH = "speech"
    MODERATIONS = "moderations"
    RERANK = "rerank"
    COUNT_TOKENS = "count_tokens"
    MODELS = "models"


NOT_ONLY_JSON = frozenset((Kind.SPEECH, Kind.TRANSCRIPTIONS, Kind.TRANSLATIONS))
"""Their replies may be sound, subtitles or bare text."""

MEDIA = frozenset((Kind.IMAGES, Kind.IMAGE_EDITS, *NOT_ONLY_JSON))
"""Their streams have events of their own: `image_generation.completed`, `transcript.text.done`."""
