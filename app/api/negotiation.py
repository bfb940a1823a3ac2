"""Selects the media type of a response by the `Accept` header. Pure; imports no framework."""

from collections.abc import Mapping

from app.errors import NotAcceptable


def select_media_type(accept: str, answers: Mapping[str, str]) -> str:
    """Return the media type of the response: the first accepted one that is available; weights (`q`) are ignored.

    Args:
        accept: The `Accept` header; empty or `*/*` if the request has none.
        answers: The available media type for each accepted media type or wildcard.

    Raises:
        NotAcceptable: No accepted media type is available.
    """
    for part in accept.split(","):
        media_type = part.split(";")[0].strip().lower()
        if media_type in answers:
            return answers[media_type]
    raise NotAcceptable(f"This route answers {', '.join(dict.fromkeys(answers.values()))}.")
