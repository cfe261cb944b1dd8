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
