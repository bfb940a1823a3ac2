"""Which form of an answer a request's `Accept` asks for."""

from collections.abc import Mapping

from app.errors import NotAcceptable


def wanted(accept: str, answers: Mapping[str, str]) -> str:
    """Return the media type to answer with: the first of those asked for that there is, weights left aside.

    Args:
        accept: The header; empty or `*/*` where there is none.
        answers: What each name in it is answered with.

    Raises:
        NotAcceptable: None of them is among the answers.
    """
    for part in accept.split(","):
        media_type = part.split(";")[0].strip().lower()
        if media_type in answers:
            return answers[media_type]
    raise NotAcceptable(f"This route answers {', '.join(dict.fromkeys(answers.values()))}.")
